"""The thread that keeps a worker's messages moving while a long task runs."""

import threading
import time
from collections.abc import Callable

CHECK_INTERVAL = 5e-3
"""Seconds between two checks, and how long a batch runs before the thread moves its messages."""

PARK_AFTER = 0.25
"""Seconds without work after which the thread sleeps until it is woken."""

IDLE_SHARE, LONGEST_IDLE_INTERVAL = 0.5, 50e-3
"""Without work, the next check follows after this share of the time since then, at most so many seconds."""


NEEDED_MEMORY = 1 << 20
"""Bytes without which no message is moved: one that is partly received would be lost."""


def _has_memory() -> bool:
    """Whether the task has left memory for messages; it fails, or gives memory back, if it has not."""
    try:
        bytes(NEEDED_MEMORY)  # unlike a bytearray, its pages stay untouched
    except MemoryError:
        return False
    return True


class ProgressThread(threading.Thread):
    """Calls `move` from time to time while its worker is busy.

    It does nothing for short batches: it wakes every 5 ms, and waits until a batch has run that long.

    Parameters
    ----------
    move : callable
        Receives what has arrived and continues what is being sent.

    Attributes
    ----------
    error : BaseException or None
        What `move` raised; the thread has ended then.
    """

    def __init__(self, move: Callable[[], object]) -> None:
        super().__init__(name="taskfarm progress", daemon=True)
        self._move = move
        self._busy_since: float | None = None
        self._parked = False
        self._stopped = False
        self._wake = threading.Event()
        self.error: BaseException | None = None

    def batch_started(self) -> None:
        """Note that the worker begins a batch."""
        self._busy_since = time.perf_counter()
        if self._parked:
            self._wake.set()

    def batch_ended(self) -> None:
        """Note that the worker handles its messages by itself again."""
        self._busy_since = None

    def run(self) -> None:
        """Check, move, sleep."""
        try:
            worked = time.perf_counter()
            while not self._stopped:
                since, now = self._busy_since, time.perf_counter()
                interval = CHECK_INTERVAL
                if since is not None:
                    worked = now
                    if now - since >= CHECK_INTERVAL and _has_memory():
                        self._move()
                elif now - worked > PARK_AFTER:
                    self._park()
                    worked = time.perf_counter()
                else:
                    interval = max(CHECK_INTERVAL, min(LONGEST_IDLE_INTERVAL, (now - worked) * IDLE_SHARE))
                time.sleep(interval)
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
