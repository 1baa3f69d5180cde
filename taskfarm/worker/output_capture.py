"""Sends what tasks print and log to the master, line by line."""

import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskfarm.protocol.messages import ERR, OUT, OutputLine
from taskfarm.worker.context import IN_TASK

if TYPE_CHECKING:
    from taskfarm.worker.terminal_rows import TerminalRows

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
        self._rows: dict[int, tuple[int, TerminalRows]] = {}
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
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        me, task = threading.get_ident(), _task()
        if "\r" in text or text.startswith("\n") or me in self._rows:
            self._write_rows(me, task, text)
            return len(text)
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

    def _write_rows(self, me: int, task: int, text: str) -> None:
        """Write text of which a terminal would not show everything in the end, or whatever follows it."""
        from taskfarm.worker.terminal_rows import TerminalRows

        with self._lock:
            before, rest = self._unfinished.pop(me, (task, ""))
            if before != task:
                self._send(before, rest + "\n")
                rest = ""
            drawn_by, rows = self._rows.pop(me, (task, TerminalRows()))
            if drawn_by != task:
                self._send(drawn_by, rows.flush())
            final = rows.write(rest + text)
            if len(rows) > MAX_LINE:
                final += rows.flush()
            if rows:
                self._rows[me] = (task, rows)
        self._send(task, final)

    def flush_lines(self) -> None:
        """Send the lines that have no end yet; called at the end of a batch."""
        if self._rows:
            with self._lock:
                drawn, self._rows = self._rows, {}
            for task, rows in drawn.values():
                self._send(task, rows.flush())
        if self._unfinished:
            with self._lock:
                unfinished, self._unfinished = self._unfinished, {}
            for task, rest in unfinished.values():
                self._send(task, rest + "\n")

    def _send(self, task: int, text: str) -> None:
        if text:
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
        """Send a record."""
        from taskfarm.protocol.log_records import to_message

        try:
            line = to_message(record, _task())
        except Exception:
            self.handleError(record)
            return
        self._send(line)


class LogLevels:
    """Follows the levels of the job's loggers, but leaves alone what tasks have set since."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}

    def follow(self, levels: dict[str, int]) -> None:
        """Set the levels that have changed on rank 0; the name of the root logger is empty."""
        for name in self._levels.keys() | levels.keys():
            if self._levels.get(name) != (level := levels.get(name, logging.NOTSET)):
                logging.getLogger(name).setLevel(level)
        self._levels = levels


def _without_null_handlers(call_handlers: Callable[..., None]) -> Callable[..., None]:
    """`Logger.callHandlers` for a worker: a library's `NullHandler` does not keep a record from the job."""

    def call(logger: logging.Logger, record: logging.LogRecord) -> None:
        current: logging.Logger | None = logger
        while current is not None:
            if any(type(handler) is not logging.NullHandler for handler in current.handlers):
                call_handlers(logger, record)
                return
            current = current.parent if current.propagate else None
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)

    return call


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
        self._call_handlers = logging.Logger.callHandlers
        self._levels = LogLevels()
        sys.stdout, sys.stderr = self._streams
        # Not a handler of the root logger: with one there, logging.basicConfig in a task would do nothing.
        logging.lastResort = LogForwarder(send)
        logging.Logger.callHandlers = _without_null_handlers(self._call_handlers)  # type: ignore[method-assign]

    def follow_levels(self, levels: dict[str, int]) -> None:
        """Set the levels of loggers that have changed on rank 0."""
        self._levels.follow(levels)

    def flush_lines(self) -> None:
        """Send the lines that have no end yet."""
        for stream in self._streams:
            if stream._unfinished or stream._rows:
                stream.flush_lines()

    def bypass(self) -> None:
        """In a forked process: write to what was replaced, also through references to the replacements."""
        for stream in self._streams:
            stream.bypass()
        logging.lastResort = self._last_resort
        logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]

    def restore(self) -> None:
        """Put back what was replaced."""
        self.flush_lines()
        sys.stdout, sys.stderr = self._before
        logging.lastResort = self._last_resort
        logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]
        # Threads and loggers may keep what replaced them.
        self.bypass()
