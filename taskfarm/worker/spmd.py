"""A worker in a program that all ranks run: it serves for the length of one ``with`` block."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import FrameType
from typing import Self

from taskfarm.transport.interface import Transport
from taskfarm.worker.worker import Worker

ANSWER_SECONDS = 5.0
"""Seconds that a worker which leaves before the end waits for the master's answer."""

ENTER_SECONDS = 5.0
"""Seconds that a rank which is interrupted while it waits for the others goes on waiting.

If they come, it leaves together with them: after the block has been opened and closed on every rank.
"""


class Interrupts(AbstractContextManager["Interrupts"]):
    """Decides when SIGINT becomes KeyboardInterrupt, if Python would raise it at once.

    Attributes
    ----------
    requested : float or None
        When SIGINT arrived while there was no `action`.
    action : callable or None
        Called by the handler of the signal.
    """

    def __init__(self) -> None:
        self.requested: float | None = None
        self.action: Callable[[], None] | None = None
        self._installed = False
        self._installed_handler: Callable[[int, FrameType | None], None] = self._handle

    def __enter__(self) -> Self:
        if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._is_installed():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.requested is not None and self.action is None and raised[:1] in ((), (None,)):
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.action is not None:
            self.action()
        elif self.requested is None:
            self.requested = time.monotonic()
        else:
            self.while_waiting()

    def hand_over(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """Let another handler decide until `postpone`."""
        if self._installed and _in_main_thread():
            self._installed_handler = handler
            signal.signal(signal.SIGINT, handler)

    def postpone(self) -> None:
        """Raise KeyboardInterrupt for what arrives from now on when the context ends."""
        self.requested = self.action = None
        if self._is_installed():
            self._installed_handler = self._handle
            signal.signal(signal.SIGINT, self._handle)

    def _is_installed(self) -> bool:
        return (
            self._installed
            and _in_main_thread()
            and signal.getsignal(signal.SIGINT) == self._installed_handler
        )

    def while_waiting(self) -> None:
        """Raise KeyboardInterrupt if it was requested and the other ranks have not come since."""
        if self.requested is not None and time.monotonic() - self.requested > ENTER_SECONDS:
            raise KeyboardInterrupt


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def serve_block(transport: Transport, interrupts: Interrupts) -> None:
    """Work until the poison pill, and release the transport.

    What ends the worker before (KeyboardInterrupt, for instance) is raised here after the master has been
    told: it gives the worker's tasks to others.
    """
    worker = Worker(transport)

    def interrupt() -> None:
        # Between two messages it waits for the next look, so that no message is lost.
        worker.interrupted = True
        if worker.runs_task:
            raise KeyboardInterrupt

    interrupts.action = interrupt
    worker.interrupted = worker.interrupted or interrupts.requested is not None
    try:
        worker.serve()
    except BaseException as error:
        if not _resign(worker, error):
            # What the master has sent is still on its way, so its communicators must not be used again.
            transport.forget(0)
        raise
    finally:
        transport.close()


def _resign(worker: Worker, error: BaseException) -> bool:
    with suppress(BaseException):
        return worker.resign(": ".join(filter(None, (type(error).__name__, str(error)))), ANSWER_SECONDS)
    return False
