"""Messages to the user, and streams that may be full, closed or without a reader."""

import contextlib
import io
import os
import sys
from typing import Any


def write_to(stream: Any, text: str) -> None:
    """Write text on a stream; does nothing if the stream is missing, closed, full or without a reader.

    What the stream cannot encode is written as backslash escapes. Nothing is left in the stream's buffer,
    where it would change the exit code when Python flushes its streams at exit.
    """
    with contextlib.suppress(Exception):
        if stream is not None and type(stream) is io.TextIOWrapper:
            # What the job has written comes first, and keeps Python's own rules.
            stream.flush()
            raw: Any = getattr(stream.buffer, "raw", stream.buffer)
            rest = memoryview(_encoded(text, stream.encoding, stream.errors))
            while rest:
                written = raw.write(rest)
                if written is None:  # a descriptor that does not block
                    _await_writable(stream.fileno())
                rest = rest[written or 0 :]
        elif stream is not None:
            encoding = getattr(stream, "encoding", None)
            if isinstance(encoding, str):
                text = _encoded(text, encoding, "strict").decode(encoding)
            stream.write(text)
            stream.flush()


def _encoded(text: str, encoding: str, errors: str | None) -> bytes:
    try:
        return text.encode(encoding, errors or "strict")
    except UnicodeError:
        return text.encode(encoding, "backslashreplace")


def _await_writable(descriptor: int) -> None:
    import select

    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    poller.poll()


def write(text: object, end: str = "\n") -> None:
    """Print text on standard error; does nothing if that is impossible."""
    write_to(sys.stderr, f"{text}{end}")


def say(line: str) -> None:
    """Write a line that begins with the name of taskfarm."""
    write(f"taskfarm: {line}")


def flush() -> None:
    """Flush the standard streams; ignores those that are missing, closed, full or without a reader."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def open_missing() -> None:
    """Let the standard descriptors that are closed refer to nothing.

    Otherwise the next file that is opened would become a standard stream, and compiled code that prints
    would write into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
