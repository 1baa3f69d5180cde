"""The other ranks at work: receive, run, reply."""
