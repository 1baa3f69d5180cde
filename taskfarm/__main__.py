"""``python -m taskfarm``."""

import os
import sys

if not sys.flags.safe_path and __name__ == "__main__":
    # Python has put the current folder first. A signal.py there is neither taskfarm's nor the job's.
    sys.path[0] = os.path.dirname(os.__file__)


def main() -> int:
    """Run the command line; returns the exit code."""
    from taskfarm.launch.early import early_interrupt

    early_interrupt.catch()
    from taskfarm.launch import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
