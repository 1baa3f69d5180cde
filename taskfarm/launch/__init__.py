"""The command line: from words to the role of each rank, and to the exit code."""
