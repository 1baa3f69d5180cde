"""The command line: from its arguments to the role of each rank, and to the exit code."""
