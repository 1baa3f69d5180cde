"""A map whose results the farm itself takes as they arrive, to reduce them or to put them into an array."""

from abc import abstractmethod
from bisect import bisect_right
from typing import Any

from taskfarm import interrupts
from taskfarm.job.maps import MapRun
from taskfarm.protocol.outcomes import Completed

_PRUNE = 1000
"""Number of sources after which those that have ended are dropped."""


class GatheringRun(MapRun):
    """A running map that hands outcomes to `place`, with their position, in any order.

    The first failure by position is raised, as soon as everything before it has ended: whatever the order
    in which results arrive, the same call is blamed as in a loop.

    Attributes
    ----------
    before : int
        All results before this position have been placed.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sources: list[list[int]] = []
        self._numbered = 0
        self._ended: dict[int, int] = {}
        self.before = 0
        self._errors: dict[int, BaseException] = {}

    @abstractmethod
    def place(self, position: int, completed: Completed) -> int:
        """Take outcomes, the first of which is the one at `position`; none of them has failed.

        Returns how many results are not kept any more: as many arguments may be drawn.
        """

    def gather(self) -> None:
        """Wait until all results have been placed; runs the event loop.

        Raises
        ------
        BaseException
            What a task or an iterable has raised.
        TimeoutError
            A result has not arrived in time.
        """
        self.begin()
        try:
            while True:
                interrupts.raise_pending()
                with self._master.lock:
                    completed = self.take()
                    is_over = self.is_over()
                    position = None if completed is None else self._position(completed)
                if completed is not None and position is not None:
                    self._take_in(position, completed)
                    # It may be large, and more of it may come before the next one is here.
                    completed = None
                elif is_over:
                    break
                else:
                    self.wait()
            if (raised := self.take_error()) is not None:
                raise raised
        finally:
            self.close()

    def _position(self, completed: Completed) -> int:
        """The position of the first of some outcomes; called once for each, under the master's lock."""
        source = self._source_of(completed.first)
        source[2] -= len(completed.values)
        if len(self._sources) > _PRUNE:
            self._sources = [entry for entry in self._sources if entry[2]]
        return source[1] + completed.first - source[0]

    def _source_of(self, task: int) -> list[int]:
        """First task, first position, and number of unfinished tasks of those queued with a task."""
        while self._order:
            first, count = self._order.popleft()
            self._sources.append([first, self._numbered, count])
            self._numbered += count
        return self._sources[bisect_right(self._sources, [task, self._numbered]) - 1]

    def position_of(self, task: int) -> int:
        """The position of a task that has not ended; under the master's lock."""
        source = self._source_of(task)
        return source[1] + task - source[0]

    def task_at(self, position: int) -> int:
        """The task at a position, which has not ended; under the master's lock."""
        source = next(entry for entry in reversed(self._sources) if entry[1] <= position)
        return source[0] + position - source[1]

    def _take_in(self, position: int, completed: Completed) -> None:
        count = len(completed.values)
        self._errors.update((position + offset, error) for offset, error in completed.failures.items())
        self._ended[position] = position + count
        while self.before in self._ended:
            self.before = self._ended.pop(self.before)
        if not self._errors:
            self.consumed(self.place(position, completed))
            return
        if not self._drawn_all:
            with self._master.lock:
                self._end_drawing()
        first = min(self._errors)
        if first < self.before:
            raise self._errors[first]
