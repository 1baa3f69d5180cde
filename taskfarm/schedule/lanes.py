"""The queue of a farm whose tasks have priorities, needs, or an order of their own. Pure.

Tasks that may take each other's place are in one lane: a queue, first come, first served. So spans of a map
stay whole, and what cannot start now holds up only its own lane.
"""

from bisect import insort
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from taskfarm.schedule.amounts import Needs
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.spans import SINGLES, Span


class Demand(NamedTuple):
    """How the tasks of a function are chosen.

    Attributes
    ----------
    priority : float
        Higher is sooner.
    needs : Needs
        What a worker must hold to run one.
    seconds : float or None
        How long one is expected to take; None: as long as those before.
    longest : bool
        Whether the longest start first.
    by_call : bool
        Whether each call has an expected duration of its own.
    ranks : int
        Workers that run one together.
    hosts : int or None
        1 if all of these must be on one host.
    """

    priority: float = 0
    needs: Needs = ()
    seconds: float | None = None
    longest: bool = False
    by_call: bool = False
    ranks: int = 1
    hosts: int | None = None


PLAIN = Demand()
"""The demand of all other functions."""


class SortedQueue(TaskQueue):
    """Tasks whose durations are expected one by one: first come, first served, or the longest first.

    Parameters
    ----------
    expected : mapping of int to float
        The expected seconds of tasks.
    longest : bool
        Whether the longest come first.
    """

    def __init__(self, expected: Mapping[int, float], longest: bool) -> None:
        super().__init__()
        self._expected = expected
        self._longest = longest
        # The next one is at the end.
        self._sorted: list[tuple[float, int, Span]] = []

    def __bool__(self) -> bool:
        return bool(self._sorted or self.retries)

    @property
    def has_spans(self) -> bool:
        return bool(self._sorted)

    def spans(self) -> Iterator[Span]:
        """All tasks: the retries, then the others in the order in which they will be assigned."""
        return chain(*self.retries.values(), (span for _, _, span in reversed(self._sorted)))

    @property
    def count(self) -> int:
        return len(self._sorted) + sum(map(len, self.retries.values()))

    @property
    def head(self) -> Span | None:
        return self._sorted[-1][2] if self._sorted else None

    def head_seconds(self) -> float | None:
        """Expected seconds of the next task, if they are known."""
        return self._expected.get(-self._sorted[-1][1]) if self._sorted else None

    def append(self, span: Span) -> None:
        """Queue the tasks of a span, each at its place."""
        entries = list(map(self._entry, _singles(span)))
        if len(entries) == 1:
            insort(self._sorted, entries[0])
        else:
            self._sorted.extend(entries)
            self._sorted.sort()

    def append_single(self, task: int, function: int) -> None:
        """Queue one task at its place."""
        insort(self._sorted, self._entry(Span(SINGLES, task, 1, function)))

    append_next = push_front = put_back = append

    def _entry(self, span: Span) -> tuple[float, int, Span]:
        return (self._expected.get(span.first, 0.0) if self._longest else 0.0), -span.first, span

    def take(self, count: int, seconds: float = 0.0) -> list[Span]:
        """Take the next tasks of one function, at most `count`; after the first, `seconds` in all."""
        spans: list[Span] = []
        taken, spent = 0, 0.0
        while self._sorted and taken < count:
            span = self._sorted[-1][2]
            spent += self._expected.get(span.first, 0.0)
            if spans and (spent > seconds or span[3:] != spans[0][3:]):
                break
            del self._sorted[-1]
            taken += 1
            if spans and spans[-1].source == span.source and spans[-1].end == span.first:
                spans[-1] = spans[-1]._replace(count=spans[-1].count + 1)
            else:
                spans.append(span)
        return spans

    def remove(self, first: int, count: int) -> list[Span]:
        """Remove and return those of the `count` tasks from `first` on that are queued."""
        removed = self._remove_retries(first, count)
        kept = []
        for entry in self._sorted:
            if first <= entry[2].first < first + count:
                removed.append(entry[2])
            else:
                kept.append(entry)
        self._sorted = kept
        return removed

    def clear(self) -> list[Span]:
        """Remove and return all tasks."""
        spans = [span for _, _, span in self._sorted] + super().clear()
        self._sorted = []
        return spans


def _singles(span: Span) -> Iterator[Span]:
    for task in range(span.first, span.end):
        yield Span(span.source, task, 1, span.function, span.chunk)


class Lane:
    """Tasks with the same priority, needs and ranks.

    Attributes
    ----------
    priority, needs, ranks, hosts
        As in `Demand`.
    queue : TaskQueue
        The tasks.
    """

    __slots__ = ("hosts", "needs", "priority", "queue", "ranks")

    def __init__(self, demand: Demand, queue: TaskQueue) -> None:
        self.priority = demand.priority
        self.needs = demand.needs
        self.ranks = demand.ranks
        self.hosts = demand.hosts
        self.queue = queue

    @property
    def rank(self) -> tuple[float, int]:
        """Which of several lanes comes first: by priority, then by the age of their next tasks."""
        head = self.queue.head
        retried = [spans[0].first for spans in self.queue.retries.values()]
        return -self.priority, min([head.first, *retried] if head else retried)


class LaneQueue(TaskQueue):
    """All lanes of a farm, with the interface of one queue for what adds tasks and removes them.

    Parameters
    ----------
    queue : TaskQueue
        The tasks without any demand so far.
    demands : mapping of int to Demand
        The demands of functions.
    expected : dict of int to float
        The expected seconds of tasks, where they are known one by one.

    Attributes
    ----------
    lowest : float
        The lowest priority that there has been.
    """

    def __init__(self, queue: TaskQueue, demands: Mapping[int, Demand], expected: dict[int, float]) -> None:
        super().__init__()
        self._demands = demands
        self._expected = expected
        self.lowest: float = 0
        self._lanes: dict[object, Lane] = {(0, (), None, 1, None): Lane(PLAIN, queue)}

    def __bool__(self) -> bool:
        return any(lane.queue for lane in self._lanes.values())

    @property
    def has_spans(self) -> bool:
        """False: which tasks may start depends on the worker."""
        return False

    @property
    def lanes(self) -> "LaneQueue":
        """This queue."""
        return self

    def parts(self) -> list[TaskQueue]:
        """The queues of the lanes that have tasks."""
        return [lane.queue for lane in self.ranked()]

    def spans(self) -> Iterator[Span]:
        """All spans, lane after lane."""
        return chain.from_iterable(lane.queue.spans() for lane in self.ranked())

    def ranked(self) -> list[Lane]:
        """The lanes that have tasks, in the order in which they may start."""
        lanes = [lane for lane in self._lanes.values() if lane.queue]
        return sorted(lanes, key=lambda lane: lane.rank) if len(lanes) > 1 else lanes

    def lane(self, function: int) -> Lane:
        """The lane of a function."""
        demand = self._demands.get(function, PLAIN)
        by_call = demand.by_call or demand.longest
        order = demand.longest if by_call else None
        key = (demand.priority, demand.needs, order, demand.ranks, demand.hosts)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) > 32:
                self._lanes = {one: lane for one, lane in self._lanes.items() if lane.queue}
            self.lowest = min(self.lowest, demand.priority)
            queue = SortedQueue(self._expected, demand.longest) if by_call else TaskQueue()
            lane = self._lanes[key] = Lane(demand, queue)
        return lane

    def append(self, span: Span) -> None:
        """Queue a span at the end of its lane."""
        self.lane(span.function).queue.append(span)

    def append_single(self, task: int, function: int) -> None:
        """Queue one task at the end of its lane."""
        self.lane(function).queue.append_single(task, function)

    def append_next(self, span: Span) -> None:
        """Queue a span at the end of its lane; it extends the last span, if that ends where it begins."""
        self.lane(span.function).queue.append_next(span)

    def append_retry(self, span: Span, failed_on: int) -> None:
        """Queue a retry of a task that has failed on a worker."""
        self.lane(span.function).queue.append_retry(span, failed_on)

    def push_front(self, span: Span) -> None:
        """Queue a span at the head of its lane."""
        self.lane(span.function).queue.push_front(span)

    def put_back(self, span: Span) -> None:
        """Queue a span again at the head of its lane, but after those that came before it."""
        self.lane(span.function).queue.put_back(span)

    def remove(self, first: int, count: int) -> list[Span]:
        """Remove and return those of the `count` tasks from `first` on that are queued."""
        return [span for lane in self._lanes.values() for span in lane.queue.remove(first, count)]

    def clear(self) -> list[Span]:
        """Remove and return all spans."""
        return [span for lane in self._lanes.values() for span in lane.queue.clear()]


def remove_from(spans: list[Span], first: int, count: int) -> list[Span]:
    """Remove those of the `count` tasks from `first` on from a list of spans; returns them."""
    queue = TaskQueue()
    for span in spans:
        queue.append(span)
    removed = queue.remove(first, count)
    spans[:] = queue.clear()
    return removed
