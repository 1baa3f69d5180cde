"""The messages between rank 0 and the workers, and the serialization of calls and outcomes."""
