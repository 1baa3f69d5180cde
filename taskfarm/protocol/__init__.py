"""What travels between rank 0 and the workers: messages, and how calls and outcomes become bytes."""
