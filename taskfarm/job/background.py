"""The thread that keeps the farm going while nobody waits for it."""

import threading
import time

from taskfarm.master.master import Master

CHECK_INTERVAL = 5e-3
"""Seconds between two checks whether another thread still runs the event loop."""

PARK_AFTER = 0.25
"""Seconds without work after which the thread sleeps until it is woken: waking it slows the caller."""


_threads: dict[Master, "BackgroundThread"] = {}
_lock = threading.Lock()


def background_thread(master: Master) -> "BackgroundThread | None":
    """The thread of a master, which is started when it is first asked for; None if there may be none."""
    if not master.transport.threads:
        return None
    with _lock:
        thread = _threads.get(master)
        if thread is None:
            thread = _threads[master] = BackgroundThread(master)
            thread.start()
        return thread


class BackgroundThread(threading.Thread):
    """Runs the event loop while tasks are unfinished and no other thread runs it.

    All farms of a master share one. It parks while there is nothing to do, and ends when the master is
    closed.

    Attributes
    ----------
    awake : bool
        Whether it looks for work by itself.
    """

    def __init__(self, master: Master) -> None:
        super().__init__(name="taskfarm", daemon=True)
        self._master = master
        self._work = threading.Event()
        self.awake = self._stopped = False

    @property
    def _has_work(self) -> bool:
        return self._master.scheduler.unfinished > 0 or self._master.deliveries.waiting

    def wake(self) -> None:
        """Note that there is work."""
        if not self.awake:
            self.awake = True
            self._work.set()

    def run(self) -> None:
        """Sleep until there is work; then run the event loop unless another thread does."""
        try:
            self._run()
        finally:
            with _lock:
                _threads.pop(self._master, None)

    def _run(self) -> None:
        master = self._master
        moved = worked = time.perf_counter()
        while not (self._stopped or master.closed):
            now = time.perf_counter()
            if not self._has_work:
                if master.farms and master.failure_detector.heartbeats.due(now):
                    master.run_once()
                if now - worked < PARK_AFTER:
                    time.sleep(CHECK_INTERVAL)
                else:
                    master.run_once()  # shows the observers how the last tasks have ended
                    self._park()
                    worked = time.perf_counter()
                continue
            worked = now
            if master.is_run_by_caller:
                time.sleep(CHECK_INTERVAL)
                moved = time.perf_counter()
            elif master.run_once():
                master.waiter.received(now - moved)
                moved = time.perf_counter()
            else:
                master.waiter.pause(now - moved)

    def _park(self) -> None:
        """Sleep until there is work."""
        self._work.clear()
        self.awake = False
        # Work that came before the line above would not set the event again.
        if not self._has_work and not self._stopped:
            heartbeats = self._master.failure_detector.heartbeats
            # Workers that end themselves when rank 0 is silent need heartbeats meanwhile.
            needs_heartbeats = self._master.farms and heartbeats.lost_after is not None
            self._work.wait(heartbeats.interval if needs_heartbeats else None)
        self.awake = True

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = self.awake = True
        self._work.set()
        if threading.current_thread() is not self:
            self.join()
