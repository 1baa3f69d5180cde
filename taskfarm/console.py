"""Messages to the user on standard error."""

import contextlib
import sys


def say(line: str) -> None:
    """Print a line on standard error; does nothing if the stream is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(f"taskfarm: {line}", file=sys.stderr, flush=True)


def flush() -> None:
    """Flush the standard streams; ignores those that are closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
