"""The transport of messages: its interface, the implementation with MPI, and waiting for messages."""
