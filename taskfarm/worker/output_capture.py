"""Sends what tasks print and log to the master, line by line."""

import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from taskfarm.protocol.messages import ERR, LOG, OUT, OutputLine
from taskfarm.worker.context import IN_TASK

MAX_LINE = 1 << 16
"""Characters after which a line that does not end is sent in pieces."""

SendOutput = Callable[[OutputLine], object]


def _task() -> int:
    """The task that this thread runs; -1 if it runs none, or was started by a task."""
    context = IN_TASK.get()
    return -1 if context is None else context.current().task


class LineStream(io.TextIOBase):
    """Replaces a standard stream: whole lines go to a function.

    What compiled code and subprocesses write to the descriptor bypasses it.

    Parameters
    ----------
    kind : int
        `OUT` or `ERR`.
    replaced : file
        The stream that it replaces.
    send : callable
        Takes the lines.

    Attributes
    ----------
    kind : int
        As given.
    replaced : file
        The stream that it replaces.
    """

    def __init__(self, kind: int, replaced: Any, send: SendOutput) -> None:
        self.kind = kind
        self.replaced = replaced
        self._send_line = send
        self._unfinished: dict[int, tuple[int, str]] = {}
        self._lock = threading.RLock()
        self._bypassed = False

    def __getattr__(self, name: str) -> Any:
        # Whatever else code expects of a standard stream: its buffer, its mode.
        return getattr(self.replaced, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream that it replaces."""
        return str(getattr(self.replaced, "encoding", "utf-8"))

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream that it replaces."""
        return int(self.replaced.fileno())

    def isatty(self) -> bool:
        """Always false: the terminal is at rank 0."""
        return False

    def write(self, text: str) -> int:
        """Send the lines that are complete now; the rest is kept by thread and task."""
        me, task = threading.get_ident(), _task()
        with self._lock:
            before, rest = self._unfinished.pop(me, (task, ""))
            if before != task:
                self._send(before, rest + "\n")
                rest = ""
            whole, newline, rest = (rest + text).rpartition("\n")
            if len(rest) > MAX_LINE:
                whole, newline, rest = whole + newline + rest, "\n", ""
            if rest:
                self._unfinished[me] = (task, rest)
        if newline:
            self._send(task, whole + newline)
        return len(text)

    def flush_lines(self) -> None:
        """Send the lines that have no end yet; called at the end of a batch."""
        if self._unfinished:
            with self._lock:
                unfinished, self._unfinished = self._unfinished, {}
            for task, rest in unfinished.values():
                self._send(task, rest + "\n")

    def _send(self, task: int, text: str) -> None:
        self._send_line(OutputLine(self.kind, 0, "", task, text))

    def bypass(self) -> None:
        """From now on, write to the stream that this one replaced: a forked process cannot send."""
        self._lock = threading.RLock()
        self._unfinished.clear()
        self._send_line = self._write_replaced
        self._bypassed = True

    def _write_replaced(self, line: OutputLine) -> None:
        context = IN_TASK.get()
        tag = "" if context is None else f"[rank {context.current().rank} task {line.task}] "
        self.replaced.write("".join(f"{tag}{one}\n" for one in line.text.splitlines()))
        self.replaced.flush()

    def flush(self) -> None:
        """Write a line that has no end yet, in a forked process; otherwise do nothing."""
        if self._bypassed:
            self.flush_lines()


class LogForwarder(logging.Handler):
    """Sends log records to the master, where they go to the logger of the same name."""

    def __init__(self, send: SendOutput) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; its text, with its traceback, is made here."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._send(OutputLine(LOG, record.levelno, record.name, _task(), text))


class OutputCapture:
    """Replaces the standard streams, and handles log records that no other handler takes.

    Parameters
    ----------
    send : callable
        Takes the output.
    """

    def __init__(self, send: SendOutput) -> None:
        self._before = (sys.stdout, sys.stderr)
        self._streams = (LineStream(OUT, sys.stdout, send), LineStream(ERR, sys.stderr, send))
        self._last_resort = logging.lastResort
        sys.stdout, sys.stderr = self._streams
        # Not a handler of the root logger: with one there, logging.basicConfig in a task would do nothing.
        logging.lastResort = LogForwarder(send)

    def flush_lines(self) -> None:
        """Send the lines that have no end yet."""
        for stream in self._streams:
            stream.flush_lines()

    def bypass(self) -> None:
        """In a forked process: write to what was replaced, also through references to the replacements."""
        for stream in self._streams:
            stream.bypass()
        logging.lastResort = self._last_resort

    def restore(self) -> None:
        """Put back what was replaced."""
        self.flush_lines()
        sys.stdout, sys.stderr = self._before
        # Threads and loggers may keep what replaced them.
        self.bypass()
