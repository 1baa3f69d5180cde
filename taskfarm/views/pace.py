"""How fast tasks end, how much time is left, and which task takes unusually long."""

from collections import deque
from typing import NamedTuple

from taskfarm.master.master import Master

WINDOW = 30.0
"""Seconds of work over which the rate is measured."""

SAMPLE = 0.5
"""Seconds between two samples."""

LONG, TIMES = 10.0, 10.0
"""A call is unusually long after this many seconds, if that is this many times the mean as well."""


class LongCall(NamedTuple):
    """A call that takes unusually long.

    Attributes
    ----------
    task, name : int, str
        Id of its task, and name of its function.
    seconds : float
        How long it has been running.
    times : float
        The same as a multiple of the mean.
    """

    task: int
    name: str
    seconds: float
    times: float

    def __str__(self) -> str:
        return f"task {self.task} has run for {self.seconds:.0f} s, {self.times:,.0f} times the mean"


class Pace:
    """Measures the rate of the last half minute of work: an observer of the master.

    Time without any unfinished task does not count, so a pause of the job does not spoil the rest.

    Parameters
    ----------
    master : Master
        The master whose tasks are counted.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._worked = 0.0
        self._last: float | None = None
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)])

    def __call__(self, now: float) -> None:
        counts = self._master.scheduler.counts()
        if self._last is not None and counts.total > counts.ended:
            self._worked += now - self._last
        self._last = now
        if self._worked >= self._samples[-1][0] + SAMPLE:
            self._samples.append((self._worked, counts.ended))
        while len(self._samples) > 2 and self._worked - self._samples[1][0] > WINDOW:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Tasks that end in a second, lately."""
        worked, ended = self._samples[0]
        seconds = self._worked - worked
        return (self._master.scheduler.counts().ended - ended) / seconds if seconds > 0 else 0.0

    @property
    def total(self) -> int | None:
        """Number of tasks; None while a map has a generator whose end is not known."""
        if any(progress.total is None and not progress.over for progress in list(self._master.maps)):
            return None
        return self._master.scheduler.counts().total + self._master.undrawn

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all tasks have ended at this rate; None if that is not known."""
        rate, total = self.rate, self.total
        if total is None or not rate:
            return None
        return (total - self._master.scheduler.counts().ended) / rate

    @property
    def long_call(self) -> LongCall | None:
        """The call that has been running for longest, if that is unusual."""
        now, scheduler = self._master.clock.now(), self._master.scheduler
        found = None
        for _, span, since in scheduler.running():
            seconds, mean = now - since, scheduler.estimate(span.function).seconds
            if seconds < LONG or not mean or seconds < TIMES * mean * span.count:
                continue
            if found is None or seconds > found.seconds:
                name = self._master.outstanding.pending.function_of(span).name
                found = LongCall(span.first, name, seconds, seconds / mean)
        return found
