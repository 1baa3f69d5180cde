"""What tasks have said, on rank 0."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from taskfarm.protocol.messages import ERR, LOG, STACK, OutputLine

Aside = Callable[[], AbstractContextManager[object]]


class Output:
    """Prints what tasks have said, each line with its rank and task before it.

    Parameters
    ----------
    aside : callable
        Gives a context in which may be written: a bar gets out of the way.

    Attributes
    ----------
    stacks : dict of int to str
        Where each worker said it was, when it was last asked.
    """

    def __init__(
        self, aside: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ) -> None:
        self._aside = aside
        self.stacks: dict[int, str] = {}

    def __call__(self, worker: int, said: OutputLine) -> None:
        """Print what a worker's task has said."""
        tag = f"[rank {worker}]" if said.task < 0 else f"[rank {worker} task {said.task}]"
        if said.kind == STACK:
            self.stacks[worker] = f"rank {worker}, {time.strftime('%H:%M:%S')}, {said.text}"
        stream = sys.stderr if said.kind in (ERR, STACK) else sys.stdout
        if said.kind == LOG:
            logger = logging.getLogger(said.name)
            if logger.isEnabledFor(said.level):
                with self._aside():
                    logger.handle(
                        logging.LogRecord(said.name, said.level, "", 0, f"{tag} {said.text}", None, None)
                    )
            return
        lines = "".join(f"{tag} {line}\n" for line in said.text.splitlines())
        # A reader that has gone is no reason to end the run.
        with contextlib.suppress(OSError, ValueError), self._aside():
            stream.write(lines)
            stream.flush()
