"""The thread that keeps the farm going while nobody waits for it."""

import threading
import time

from taskfarm.master import Master
from taskfarm.waiting import CLOCK

CHECK = 5e-3
"""Seconds between two looks at whether those who wait still drive."""


class Background(threading.Thread):
    """Drives the master while work is out and no other thread does."""

    def __init__(self, master: Master) -> None:
        super().__init__(name="taskfarm", daemon=True)
        self._master = master
        self._work = threading.Event()
        self._stopped = False
        self.error: BaseException | None = None

    def wake(self) -> None:
        """Say that there is work; cheap if the thread is awake."""
        if not self._work.is_set():
            self._work.set()

    def run(self) -> None:
        """Sleep until there is work; while there is, drive unless others do."""
        since = time.perf_counter()
        while not self._stopped:
            if not self._master.scheduler.unfinished:
                self._work.clear()
                # Work that came between the two lines above has not been seen.
                if not self._master.scheduler.unfinished:
                    self._work.wait()
                since = time.perf_counter()
            elif self._master.driven:
                time.sleep(CHECK)
            elif self._master.turn():
                since = time.perf_counter()
            else:
                CLOCK.rest(time.perf_counter() - since)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        self._work.set()
        if threading.current_thread() is not self:
            self.join()
