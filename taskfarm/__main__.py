"""``python -m taskfarm``."""

import sys

from taskfarm.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
