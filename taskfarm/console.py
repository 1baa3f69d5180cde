"""Messages to the user on standard error."""

import contextlib
import os
import sys


def write(text: object, end: str = "\n") -> None:
    """Print text on standard error; does nothing if the stream is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Write a line that begins with the name of taskfarm."""
    write(f"taskfarm: {line}")


def say_past_mpiexec(line: str) -> None:
    """Print a line on mpiexec's own standard error: Open MPI's drops what ranks print after SIGTERM."""
    with contextlib.suppress(OSError), open(f"/proc/{os.getppid()}/fd/2", "a") as stderr:
        print(f"taskfarm: {line}", file=stderr)
        return
    say(line)


def flush() -> None:
    """Flush the standard streams; ignores those that are closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
