"""What tasks print and log, line by line to the master."""

import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from taskfarm.protocol.messages import ERR, LOG, OUT, OutputLine
from taskfarm.worker.context import IN_TASK

LONGEST = 1 << 16
"""Characters after which a line that does not end is sent in pieces."""

Say = Callable[[OutputLine], object]


def _task() -> int:
    """The task that this thread runs; -1 if it runs none, or was started by one."""
    running = IN_TASK.get()
    return -1 if running is None else running.current().task


class Stream(io.TextIOBase):
    """Stands in the place of a standard stream: whole lines go to the master.

    What code outside of Python writes to the descriptor goes the old way.

    Parameters
    ----------
    kind : int
        `OUT` or `ERR`.
    replaced : file
        The stream that was there.
    say : callable
        Sends what was said.

    Attributes
    ----------
    kind : int
        As given.
    replaced : file
        The stream that was there.
    """

    def __init__(self, kind: int, replaced: Any, say: Say) -> None:
        self.kind = kind
        self.replaced = replaced
        self._say = say
        self._rest: dict[int, tuple[int, str]] = {}
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        # What else code may want of a standard stream: its buffer, its mode.
        return getattr(self.replaced, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream that was there."""
        return str(getattr(self.replaced, "encoding", "utf-8"))

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream that was there."""
        return int(self.replaced.fileno())

    def isatty(self) -> bool:
        """Never: a terminal is at rank 0."""
        return False

    def write(self, text: str) -> int:
        """Send the lines that are whole now; what has no end yet is kept for each thread and task."""
        me, task = threading.get_ident(), _task()
        with self._lock:
            before, rest = self._rest.pop(me, (task, ""))
            if before != task:
                self._send(before, rest + "\n")
                rest = ""
            whole, newline, rest = (rest + text).rpartition("\n")
            if len(rest) > LONGEST:
                whole, newline, rest = whole + newline + rest, "\n", ""
            if rest:
                self._rest[me] = (task, rest)
        if newline:
            self._send(task, whole + newline)
        return len(text)

    def end_lines(self) -> None:
        """Send what has no end yet, at the end of a batch."""
        if self._rest:
            with self._lock:
                rests, self._rest = self._rest, {}
            for task, rest in rests.values():
                self._send(task, rest + "\n")

    def _send(self, task: int, text: str) -> None:
        self._say(OutputLine(self.kind, 0, "", task, text))


class Forwarder(logging.Handler):
    """Sends log records to the master, where they go to the logger of the same name."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; its text is made here, with its traceback."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._say(OutputLine(LOG, record.levelno, record.name, _task(), text))


class Speech:
    """Puts streams of the farm's in place, and a log handler for records that have no other.

    Parameters
    ----------
    say : callable
        Sends what was said.
    """

    def __init__(self, say: Say) -> None:
        self._before = (sys.stdout, sys.stderr)
        self._streams = (Stream(OUT, sys.stdout, say), Stream(ERR, sys.stderr, say))
        self._last_resort = logging.lastResort
        sys.stdout, sys.stderr = self._streams
        # Not a handler of the root logger: with one there, logging.basicConfig in a task does nothing.
        logging.lastResort = Forwarder(say)

    def end_lines(self) -> None:
        """Send lines that have no end yet."""
        for stream in self._streams:
            stream.end_lines()

    def end(self) -> None:
        """Put back what was there."""
        self.end_lines()
        sys.stdout, sys.stderr = self._before
        logging.lastResort = self._last_resort
