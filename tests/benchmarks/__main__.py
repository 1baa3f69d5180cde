"""taskfarm beside its peers: mpiexec -n 3 python -m tests.benchmarks

Every figure is taken on the same ranks in one run, peer after peer, with its results checked.
"""

import argparse

# Processes that the peers spawn import this file, too: nothing here may start MPI.
if __name__ == "__main__":
    from tests.benchmarks.compare import main
    from tests.benchmarks.peers import PEERS
    from tests.benchmarks.rows import ROWS

    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="PEER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file")
    main(parser.parse_args())
