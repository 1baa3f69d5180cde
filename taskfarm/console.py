"""Lines for the user on standard error."""

import contextlib
import sys


def say(line: str) -> None:
    """Print a line on standard error, though the launcher may have closed it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"taskfarm: {line}", file=sys.stderr, flush=True)


def flush() -> None:
    """Flush the standard streams, though their reader may have gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
