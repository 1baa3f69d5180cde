"""``python -m taskfarm``."""

import os
import sys

if not sys.flags.safe_path:
    # Python has put the current folder first. A signal.py there is neither taskfarm's nor the job's.
    sys.path[0] = os.path.dirname(os.__file__)

from taskfarm.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
