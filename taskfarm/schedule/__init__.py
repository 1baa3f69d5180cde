"""Pure decisions: which worker runs which tasks, in what batches, and who has been silent too long."""
