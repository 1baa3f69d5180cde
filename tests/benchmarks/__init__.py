"""taskfarm beside its peers, on the same ranks: mpiexec -n 3 python -m tests.benchmarks; see --help."""
