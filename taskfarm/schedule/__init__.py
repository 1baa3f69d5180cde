"""Pure decisions: which worker runs which tasks, in which batches, and which worker is lost."""
