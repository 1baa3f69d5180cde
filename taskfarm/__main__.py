"""``python -m taskfarm``."""

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    from taskfarm.launch.early import early_interrupt

    early_interrupt.catch()
    from taskfarm.launch import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
