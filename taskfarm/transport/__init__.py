"""How messages travel: the interface, MPI, and how a rank waits for the next message."""
