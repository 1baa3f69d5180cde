"""``python -m taskfarm``."""

import os
import signal
import sys


def _end_interrupted(*_: object) -> None:
    """End this process while it loads its modules: there is nothing to keep, and no traceback to show."""
    from taskfarm.environment import claimed_rank

    if claimed_rank(os.environ) == 0:
        os.write(2, b"taskfarm: interrupted; all ranks end\n")
    os._exit(130)


if __name__ == "__main__":
    # Shells let commands in the background ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_interrupted)

    from taskfarm.launch.cli import main

    sys.exit(main())
