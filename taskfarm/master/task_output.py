"""Prints on rank 0 what tasks print, and hands what they log to the job's handlers."""

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from taskfarm.console import write_to
from taskfarm.protocol.log_records import make_record
from taskfarm.protocol.messages import ERR, LOG, STACK, OutputLine

MAX_WAITING = 10_000
"""Lines after which no more are received until they are written."""


class TaskOutput:
    """Prints the output of tasks, each line after its rank and task.

    A handler of the job's may submit, or wait and so run the event loop. So lines are queued under the
    master's lock and written without it, by one thread at a time.

    Parameters
    ----------
    external_write_mode : callable
        Returns a context in which output does not break a progress bar.

    Attributes
    ----------
    stacks : dict of int to str
        The last stack that each worker reported.
    """

    def __init__(
        self, external_write_mode: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ) -> None:
        self._external_write_mode = external_write_mode
        self.waiting: deque[tuple[int, OutputLine]] = deque()
        self._writing = threading.Lock()
        self.stacks: dict[int, str] = {}

    def __call__(self, worker: int, line: OutputLine) -> None:
        """Queue the output of a worker's task."""
        if line.kind == STACK:
            self.stacks[worker] = f"rank {worker}, {time.strftime('%H:%M:%S')}, {line.text}"
        self.waiting.append((worker, line))

    @property
    def is_full(self) -> bool:
        """Whether lines should be written before more are received."""
        # A handler that waits for a task must receive its result.
        return len(self.waiting) > MAX_WAITING and not self._writing.locked()

    def write(self) -> None:
        """Write what is queued; called without the master's lock."""
        # Another thread may be writing, or this one further up its stack; that goes on until the end.
        while self.waiting and self._writing.acquire(blocking=False):
            try:
                while self.waiting:
                    self._write(*self.waiting.popleft())
            finally:
                self._writing.release()

    def _write(self, worker: int, line: OutputLine) -> None:
        tag = f"[rank {worker}]" if line.task < 0 else f"[rank {worker} task {line.task}]"
        text = line.text
        if line.kind == LOG:
            logger = logging.getLogger(line.name)
            if logger.hasHandlers():
                self._handle(logger, worker, line)
                return
            if traceback := (line.fields or {}).get("exc_text"):
                text = f"{text}\n{traceback}"
            last = logging.lastResort
            if last is None or line.level < last.level or not logger.isEnabledFor(line.level):
                return
        stream = sys.stdout if line.kind not in (ERR, STACK, LOG) else sys.stderr
        write_to(stream, "".join(f"{tag} {one}\n" for one in text.splitlines()))

    def _handle(self, logger: logging.Logger, worker: int, line: OutputLine) -> None:
        """Hand a record to the job's handlers; whatever they raise is reported as logging does it."""
        record = None
        try:
            if logger.isEnabledFor(line.level):
                record = make_record(line, worker)
                with self._external_write_mode():
                    logger.handle(record)
        except BaseException as error:
            # An interruption of the job comes in its main thread.
            is_main = threading.current_thread() is threading.main_thread()
            if isinstance(error, KeyboardInterrupt) and is_main:
                raise
            with contextlib.suppress(Exception):
                logging.Handler().handleError(record or logging.makeLogRecord({}))
