"""Messages to the user on standard error."""

import contextlib
import sys


def write(text: object, end: str = "\n") -> None:
    """Print text on standard error; does nothing if the stream is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Write a line that begins with the name of taskfarm."""
    write(f"taskfarm: {line}")


def flush() -> None:
    """Flush the standard streams; ignores those that are closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
