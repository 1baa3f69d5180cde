"""Tasks that wait for the results of others. Pure."""

from collections.abc import Collection

from taskfarm.schedule.spans import Span


class WaitingTasks:
    """The tasks of one farm that cannot be queued yet, because results that they need are missing.

    Attributes
    ----------
    count : int
        Number of these tasks.
    """

    __slots__ = ("_dependents", "_missing", "_spans", "count")

    def __init__(self) -> None:
        self.count = 0
        self._spans: dict[int, Span] = {}
        self._missing: dict[int, set[int]] = {}
        self._dependents: dict[int, dict[int, None]] = {}

    def add(self, span: Span, needs: Collection[int]) -> None:
        """Let a span wait for the results of the tasks `needs`."""
        first = span.first
        self._spans[first] = span
        self._missing[first] = set(needs)
        for task in self._missing[first]:
            self._dependents.setdefault(task, {})[first] = None
        self.count += span.count

    def missing(self, task: int) -> list[int]:
        """The tasks for which a task waits; empty if it does not wait here."""
        for first, span in self._spans.items():
            if span.first <= task < span.end:
                return sorted(self._missing[first])
        return []

    def needs(self, task: int) -> bool:
        """Whether a span waits for a task."""
        return task in self._dependents

    def dependents(self, task: int) -> list[Span]:
        """The spans that wait for a task, in the order in which they were added."""
        return [self._spans[first] for first in self._dependents.get(task, ())]

    def only_dependent(self, task: int) -> Span | None:
        """The single task that waits for a task, if nothing else does."""
        dependents = self._dependents.get(task)
        if dependents is None or len(dependents) > 1:
            return None
        span = self._spans[next(iter(dependents))]
        return span if span.count == 1 else None

    def num_missing(self, first: int) -> int:
        """For how many tasks a span waits."""
        return len(self._missing[first])

    def take(self, first: int) -> frozenset[int]:
        """Remove a span; returns the tasks for which it has waited."""
        missing = frozenset(self._missing[first])
        self._remove(first)
        return missing

    def resolve(self, task: int) -> list[Span]:
        """Note that the result of a task is there; returns the spans that wait for nothing any more."""
        ready: list[Span] = []
        for first in self._dependents.pop(task, ()):
            missing = self._missing[first]
            missing.discard(task)
            if not missing:
                del self._missing[first]
                ready.append(self._take(first))
        return ready

    def remove_dependents(self, task: int) -> list[Span]:
        """Remove and return the spans that wait for a task, which has no result."""
        return [self._remove(first) for first in list(self._dependents.get(task, ()))]

    def remove(self, first: int, count: int) -> list[Span]:
        """Remove and return those of the `count` tasks from `first` on that wait, as single spans."""
        if count == 1:
            return [self._remove(first)] if first in self._spans else []
        inside = [one for one, span in self._spans.items() if first <= one and span.end <= first + count]
        return [self._remove(one) for one in inside]

    def clear(self) -> list[Span]:
        """Remove and return all spans."""
        return [self._remove(first) for first in list(self._spans)]

    def _take(self, first: int) -> Span:
        span = self._spans.pop(first)
        self.count -= span.count
        return span

    def _remove(self, first: int) -> Span:
        for task in self._missing.pop(first):
            dependents = self._dependents[task]
            del dependents[first]
            if not dependents:
                del self._dependents[task]
        return self._take(first)
