"""Heartbeats: which workers to ping, and which have been silent for too long. Pure."""

from collections.abc import Callable, Iterable

IDLE_LIMIT = 120.0
"""Seconds of silence after which a worker that can answer at any time is given up."""

BUSY_LIMIT = 86400.0
"""Seconds of silence after which a worker whose task may hold the interpreter is given up."""

START_LIMIT = 600.0
"""Seconds that a worker may take to start, and again to run the initializer of a farm."""


class Heartbeats:
    """Measures how long each worker has been silent.

    A worker is pinged repeatedly until it answers, and its silence counts from the first unanswered ping.
    Times are in seconds, of any monotonic clock.

    Parameters
    ----------
    workers : iterable of int
        All workers.
    now : float
        The current time.

    Attributes
    ----------
    lost_after : float or None
        Seconds of silence after which any worker is given up. If None, the limit depends on what the
        worker is running.
    start_limit : float
        Seconds that a worker may take to become ready.
    interval : float
        Seconds between two checks.
    """

    def __init__(self, workers: Iterable[int], now: float) -> None:
        self.set_limits(None)
        self._silent_since: dict[int, float | None] = dict.fromkeys(workers, now)
        self._checked = now
        self._unready = set(self._silent_since)

    def set_limits(self, lost_after: float | None, start_limit: float | None = None) -> None:
        """Set the seconds of silence, and of starting, after which a worker is given up."""
        self.lost_after = lost_after
        self.start_limit = start_limit or START_LIMIT
        self.interval = min(lost_after or IDLE_LIMIT, self.start_limit) / 4

    def received(self, worker: int) -> None:
        """Record a heartbeat; ignored until the worker is ready, as a stuck start may still answer."""
        if worker not in self._unready:
            self._silent_since[worker] = None

    def ready(self, worker: int) -> None:
        """Record that a worker is ready for tasks."""
        self._unready.discard(worker)
        self._silent_since[worker] = None

    def await_ready(self, worker: int, now: float) -> None:
        """Start the time within which a worker must become ready."""
        self._silent_since[worker] = now
        self._unready.add(worker)

    def remove(self, worker: int) -> None:
        """Stop monitoring a worker."""
        self._silent_since.pop(worker, None)

    def due(self, now: float) -> bool:
        """Whether the next check is due."""
        return now - self._checked >= self.interval

    def check(self, now: float, limit: Callable[[int], float]) -> tuple[list[int], dict[int, float]]:
        """Check all workers.

        Parameters
        ----------
        now : float
            The current time.
        limit : callable
            Returns the seconds of silence after which a worker is given up.

        Returns
        -------
        ping : list of int
            Workers to ask for a heartbeat.
        silent : dict of int to float
            Workers to give up, with their seconds of silence.
        """
        # While the master itself was held up, it received no heartbeats, so that time is not silence.
        held_up = max(0.0, now - self._checked - 2 * self.interval)
        self._checked = now
        ping: list[int] = []
        silent: dict[int, float] = {}
        for worker, since in self._silent_since.items():
            if since is None:
                self._silent_since[worker] = now
            else:
                since += held_up
                self._silent_since[worker] = since
                if now - since > limit(worker):
                    silent[worker] = now - since
                    continue
            ping.append(worker)
        return ping, silent
