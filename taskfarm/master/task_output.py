"""Prints on rank 0 what tasks print and log."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from taskfarm.protocol.messages import ERR, LOG, STACK, OutputLine


class TaskOutput:
    """Prints the output of tasks, each line after its rank and task.

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
        self.stacks: dict[int, str] = {}

    def __call__(self, worker: int, line: OutputLine) -> None:
        """Print the output of a worker's task."""
        tag = f"[rank {worker}]" if line.task < 0 else f"[rank {worker} task {line.task}]"
        if line.kind == STACK:
            self.stacks[worker] = f"rank {worker}, {time.strftime('%H:%M:%S')}, {line.text}"
        if line.kind == LOG:
            self._log(line, tag)
            return
        stream = sys.stderr if line.kind in (ERR, STACK) else sys.stdout
        text = "".join(f"{tag} {one}\n" for one in line.text.splitlines())
        # A closed stream must not end the run.
        with contextlib.suppress(OSError, ValueError), self._external_write_mode():
            stream.write(text)
            stream.flush()

    def _log(self, line: OutputLine, tag: str) -> None:
        logger = logging.getLogger(line.name)
        if logger.isEnabledFor(line.level):
            record = logging.LogRecord(line.name, line.level, "", 0, f"{tag} {line.text}", None, None)
            with self._external_write_mode():
                logger.handle(record)
