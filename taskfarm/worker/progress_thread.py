"""The thread that keeps a worker's messages moving while a task runs long."""

import threading
import time
from collections.abc import Callable

CHECK = 5e-3
"""Seconds between two looks, and how long a batch runs before its messages are looked after."""

PARK = 0.25
"""Seconds without work after which the thread sleeps until it is woken."""


class Helper(threading.Thread):
    """Calls `move` from time to time while its worker is busy.

    Short batches never meet it: it wakes every 5 ms, and does nothing until one has run that long.

    Parameters
    ----------
    move : callable
        Takes what has arrived and moves on what is on its way.

    Attributes
    ----------
    error : BaseException or None
        What `move` raised; the thread has ended then.
    """

    def __init__(self, move: Callable[[], object]) -> None:
        super().__init__(name="taskfarm helper", daemon=True)
        self._move = move
        self._busy_since: float | None = None
        self._parked = False
        self._stopped = False
        self._wake = threading.Event()
        self.error: BaseException | None = None

    def busy(self) -> None:
        """Say that the worker begins a batch."""
        self._busy_since = time.perf_counter()
        if self._parked:
            self._wake.set()

    def free(self) -> None:
        """Say that the worker itself looks after its messages again."""
        self._busy_since = None

    def run(self) -> None:
        """Look, move, sleep."""
        try:
            worked = time.perf_counter()
            while not self._stopped:
                since, now = self._busy_since, time.perf_counter()
                if since is not None:
                    worked = now
                    if now - since >= CHECK:
                        self._move()
                elif now - worked > PARK:
                    self._park()
                    worked = time.perf_counter()
                time.sleep(CHECK)
        except BaseException as error:
            self.error = error

    def _park(self) -> None:
        self._wake.clear()
        self._parked = True
        # A batch that began before the line above did not set the event.
        if self._busy_since is None and not self._stopped:
            self._wake.wait()
        self._parked = False

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        self._wake.set()
        self.join()
