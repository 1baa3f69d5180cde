"""How a rank leaves without MPI, when MPI would wait for ranks that are lost."""

import atexit
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from taskfarm.console import flush
from taskfarm.transport.interface import Transport

FORWARD_SECONDS = 0.1
"""Seconds that the launcher gets to pass on what was printed: in an abort it may drop the rest."""


class LeaveAtExit:
    """Can end this process at exit without finalizing MPI; it runs after the job's own exit functions."""

    def __init__(self) -> None:
        self._leave: Callable[[], None] | None = None
        atexit.register(self)

    def arm(self, transport: Transport, code: int) -> None:
        """Make this process end without finalizing MPI, with an exit code."""
        self._leave = partial(transport.leave, code)

    def __call__(self) -> None:
        if self._leave is not None:
            logging.shutdown()
            flush()
            time.sleep(FORWARD_SECONDS)
            self._leave()


def abort(transport: Transport | None, code: int) -> NoReturn:
    """End every rank at once."""
    flush()
    time.sleep(FORWARD_SECONDS)
    if transport is not None:
        transport.abort(code)
    os._exit(code)
