"""taskfarm beside its peers, in one run; see `python -m tests.benchmarks --help`."""
