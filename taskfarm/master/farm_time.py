"""What the job's main thread did, as a function of time, in bounded memory."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from taskfarm.master.binned_time import BinnedTime


class TimeInFarm(NamedTuple):
    """Seconds inside the farm.

    Attributes
    ----------
    waiting : float
        The main thread waited for tasks.
    working : float
        It worked for the farm: it pickled arguments and functions, or handled messages.
    """

    waiting: float
    working: float


class FarmTime:
    """Adds up the time that the job's main thread spends in the farm; the rest is the job's own code.

    Parameters
    ----------
    now : callable
        Returns the time, in seconds.
    began : float, optional
        When the run began; by default now. Until now, the main thread waited for its workers.

    Attributes
    ----------
    drawn_seconds : float
        Seconds for which the farm drew arguments from iterables of the job.
    """

    def __init__(self, now: Callable[[], float], began: float | None = None) -> None:
        self._now = now
        self._began = now() if began is None else began
        self._bins = BinnedTime(self._began, "waiting", "working")
        self._states: list[str] = []
        self._since = now()
        self._bins.add("waiting", self._began, self._since)
        self.drawn_seconds = 0.0

    def enter(self, state: str) -> None:
        """Begin to wait or to work, or to run code of the job (``"job"``), until `leave`."""
        self._switch()
        self._states.append(state)

    def leave(self) -> None:
        """Go back to what was done before."""
        self._switch()
        self._states.pop()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work for the farm."""
        self.enter("working")
        try:
            yield
        finally:
            self.leave()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw arguments from an iterable: code of the job runs."""
        self.enter("job")
        began = self._since
        try:
            yield
        finally:
            self.leave()
            self.drawn_seconds += self._since - began

    def worked(self, start: float, end: float) -> None:
        """Note that the main thread worked between two times, although it waits or runs code of the job."""
        self._switch(start)
        self._since = max(self._since, end)
        self._bins.add("working", start, end)

    def _switch(self, now: float | None = None) -> None:
        """Account for the time up to now."""
        now = self._now() if now is None else now
        if self._states and self._states[-1] != "job":
            self._bins.add(self._states[-1], self._since, now)
        self._since = max(self._since, now)

    def between(self, start: float, end: float) -> TimeInFarm:
        """Seconds inside the farm between two times; those of a bin count as spread evenly over it."""
        found = self._bins.between(start, end)
        if self._states and self._states[-1] != "job":
            found[self._states[-1]] += max(0.0, end - max(start, self._since))
        # The bins at both ends are known as a whole only.
        length = max(0.0, end - start)
        scale = min(1.0, length / max(1e-12, sum(found.values())))
        return TimeInFarm(found["waiting"] * scale, found["working"] * scale)

    def shares(self, most: int) -> tuple[float, list[TimeInFarm]]:
        """The shares of waiting and working in equal stretches of time up to now.

        Parameters
        ----------
        most : int
            Number of stretches, at most.

        Returns
        -------
        width : float
            Seconds of a stretch.
        shares : list of TimeInFarm
            The shares of each stretch, from 0 to 1.
        """
        end = self._now() - self._began
        count = max(1, min(most, int(end / self._bins.width)))
        width = max(1e-9, end / count)
        starts = [self._began + index * width for index in range(count)]
        found = [self.between(start, start + width) for start in starts]
        return width, [TimeInFarm(waiting / width, working / width) for waiting, working in found]
