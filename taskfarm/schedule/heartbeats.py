"""Which workers to ask for a sign of life, and which have given none for too long. Pure."""

from collections.abc import Callable, Iterable

IDLE_LIMIT = 120.0
"""Seconds of silence after which a worker that is free to answer at any time is given up."""

BUSY_LIMIT = 86400.0
"""Seconds of silence after which a worker is given up whose task may be holding the interpreter."""

START_LIMIT = 600.0
"""Seconds that a worker has to start, and again for the initializer of a farm."""


class Heartbeats:
    """Keeps the time since each worker was asked in vain.

    A worker is asked anew until it answers, and its silence is counted from the first time. Times are
    in seconds, of any clock that does not go back.

    Parameters
    ----------
    workers : iterable of int
        All workers.
    now : float
        The time.

    Attributes
    ----------
    lost_after : float or None
        Seconds of silence after which any worker is given up; None: it depends on what it does.
    start_limit : float
        Seconds that a worker has to become ready.
    interval : float
        Seconds between two looks.
    """

    def __init__(self, workers: Iterable[int], now: float) -> None:
        self.set_limits(None)
        self._asked: dict[int, float | None] = dict.fromkeys(workers, now)
        self._checked = now
        self._unready = set(self._asked)

    def set_limits(self, lost_after: float | None, starting: float = START_LIMIT) -> None:
        """Say after how many seconds of silence a worker is given up."""
        self.lost_after = lost_after
        self.start_limit = starting
        self.interval = min(lost_after or IDLE_LIMIT, starting) / 4

    def received(self, worker: int) -> None:
        """Take in a sign of life; one that is not ready may give some, and yet never become so."""
        if worker not in self._unready:
            self._asked[worker] = None

    def ready(self, worker: int) -> None:
        """Take in that a worker is ready for tasks."""
        self._unready.discard(worker)
        self._asked[worker] = None

    def await_ready(self, worker: int, now: float) -> None:
        """Count the time until a worker is ready from now on."""
        self._asked[worker] = now
        self._unready.add(worker)

    def remove(self, worker: int) -> None:
        """Expect nothing of a worker any more."""
        self._asked.pop(worker, None)

    def due(self, now: float) -> bool:
        """Whether it is time for the next look."""
        return now - self._checked >= self.interval

    def check(self, now: float, limit: Callable[[int], float]) -> tuple[list[int], dict[int, float]]:
        """Look at all workers.

        Parameters
        ----------
        now : float
            The time.
        limit : callable
            Gives the seconds of silence after which a worker is given up.

        Returns
        -------
        ask : list of int
            Workers to ask for a sign of life.
        silent : dict of int to float
            Workers to give up, with the seconds that they have been silent.
        """
        # A master that was itself held up cannot say who has been silent meanwhile.
        held_up = max(0.0, now - self._checked - 2 * self.interval)
        self._checked = now
        ask, silent = [], {}
        for worker, asked in self._asked.items():
            if asked is None:
                self._asked[worker] = now
            else:
                self._asked[worker] = asked = asked + held_up
                if now - asked > limit(worker):
                    silent[worker] = now - asked
                    continue
            ask.append(worker)
        return ask, silent
