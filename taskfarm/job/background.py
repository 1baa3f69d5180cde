"""The thread that keeps the farm going while nobody waits for it."""

import threading
import time

from taskfarm.master.master import Master

CHECK = 5e-3
"""Seconds between two looks at whether those who wait still drive."""


PARK = 0.25
"""Seconds without work after which the thread sleeps until it is woken: waking it slows the caller."""


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
        moved = worked = time.perf_counter()
        while not self._stopped:
            now = time.perf_counter()
            if not self._master.scheduler.unfinished:
                if self._master.failure_detector.heartbeats.due(now):
                    self._master.run_once()
                if now - worked < PARK:
                    time.sleep(CHECK)
                else:
                    self._park()
                    worked = time.perf_counter()
                continue
            worked = now
            if self._master.is_driven:
                time.sleep(CHECK)
                moved = time.perf_counter()
            elif self._master.run_once():
                self._master.waiter.heard(now - moved)
                moved = time.perf_counter()
            else:
                self._master.waiter.rest(now - moved)

    def _park(self) -> None:
        """Sleep until there is work."""
        self._work.clear()
        # Work that came before the line above would not set the event again.
        if not self._master.scheduler.unfinished and not self._stopped:
            pulse = self._master.failure_detector.heartbeats
            # Where workers end without a word from here, somebody must give it.
            self._work.wait(None if pulse.lost_after is None else pulse.interval)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        self._work.set()
        if threading.current_thread() is not self:
            self.join()
