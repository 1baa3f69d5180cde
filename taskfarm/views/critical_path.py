"""The longest chain of tasks that waited for each other, found while the run goes on, in bounded memory."""

from bisect import bisect_right
from collections.abc import Collection
from typing import Generic, NamedTuple, TypeVar

from taskfarm.master.recorders import FinishedCalls, Recorder

T = TypeVar("T")

FEW_PARTS, MOST_PARTS = 2**10, 2**14
"""Parts that are remembered before any task has depended on another one, and from then on.

A task that depends on an older one counts as if it did not.
"""

MOST_STEPS = 10_000
"""Steps of a chain that are remembered; its length counts them all."""


class EndedParts(Generic[T]):
    """The last parts that have ended, to be found by one of their tasks.

    Parameters
    ----------
    most : int
        How many parts to remember.

    Attributes
    ----------
    most : int
        As given; it may be changed.
    """

    def __init__(self, most: int = FEW_PARTS) -> None:
        self.most = most
        self._firsts: list[int] = []
        self._parts: list[tuple[int, int, T]] = []

    def add(self, first: int, count: int, part: T, without: Collection[int] = ()) -> None:
        """Add a part by its first task and number of tasks, without those at some offsets."""
        start = first
        for end in [*(first + offset for offset in sorted(without)), first + count]:
            if end > start:
                at = bisect_right(self._firsts, start)
                self._firsts.insert(at, start)
                self._parts.insert(at, (end, first, part))
            start = end + 1
        if len(self._firsts) > self.most:
            # Ids grow with time.
            del self._firsts[: self.most // 4], self._parts[: self.most // 4]

    def find(self, task: int) -> tuple[int, T] | None:
        """The index of a task in its part, and the part; None if it is not remembered."""
        at = bisect_right(self._firsts, task) - 1
        if at < 0 or task >= self._parts[at][0]:
            return None
        _, first, part = self._parts[at]
        return task - first, part


def among(tasks: Collection[int], first: int, count: int) -> list[int]:
    """Those of some tasks that are among the `count` tasks from `first` on, in order."""
    if not tasks:
        return []
    if count > len(tasks):
        return sorted(task for task in tasks if first <= task < first + count)
    return [task for task in range(first, first + count) if task in tasks]


class Step(NamedTuple):
    """Tasks of one function that follow each other in a chain.

    Attributes
    ----------
    name : str
        The function.
    task : int
        The first of the tasks.
    count : int
        Number of tasks.
    seconds : float
        Their duration.
    total : float
        Seconds of the chain from its beginning to here.
    depth : int
        Number of steps from its beginning to here.
    before : Step or None
        The step before.
    """

    name: str
    task: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    seconds: float
    total: float
    depth: int = 1
    before: "Step | None" = None


class CriticalPath(Recorder):
    """Finds the chain of dependent tasks that took longest: no number of workers makes a run shorter.

    For each task its duration is added to the longest of the chains that end with what it depends on: the
    critical path method of J. E. Kelley and M. R. Walker (Proc. Eastern Joint Computer Conf., 160 (1959)).

    Attributes
    ----------
    edges : int
        Dependencies so far.
    longest : Step or None
        The last step of the longest chain; None if no task depends on another one.
    """

    def __init__(self) -> None:
        self.edges = 0
        self.longest: Step | None = None
        self._depends: dict[int, dict[int, None]] = {}
        self._ended: EndedParts[tuple[str, float, dict[int, Step]]] = EndedParts()

    def task_depends(self, task: int, on: int) -> None:
        """Note on what a task depends."""
        needs = self._depends.setdefault(task, {})
        # A task that was sent before its needs were known, and came back, is told of them again.
        self.edges += on not in needs
        needs[on] = None
        self._ended.most = MOST_PARTS

    def tasks_dropped(self, first: int, count: int) -> None:
        """Note that tasks will not run."""
        for task in among(self._depends, first, count):
            del self._depends[task]

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Extend the chains by these calls."""
        if len(calls.retried) == calls.count:
            return
        name, each = calls.function.name, calls.seconds / calls.count
        steps: dict[int, Step] = {}
        # A task may depend on one before it in these calls.
        self._ended.add(calls.first, calls.count, (name, each, steps), calls.retried)
        for task in among(self._depends, calls.first, calls.count):
            if task - calls.first in calls.retried:
                continue
            before = [step for on in self._depends.pop(task) if (step := self._step(on)) is not None]
            if before:
                step = _follow(max(before, key=lambda one: one.total), name, task, each)
                steps[task - calls.first] = step
                if self.longest is None or step.total > self.longest.total:
                    self.longest = step

    def steps(self) -> list[Step]:
        """The steps of the longest chain, the last of them if there are many; first step first."""
        steps: list[Step] = []
        step = self.longest
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]

    def _step(self, task: int) -> Step | None:
        """The last step of the longest chain that ends with a task."""
        found = self._ended.find(task)
        if found is None:
            return None
        offset, (name, each, steps) = found
        return steps.get(offset) or Step(name, task, 1, each, each)


def _follow(before: Step, name: str, task: int, seconds: float) -> Step:
    total = before.total + seconds
    if before.name == name:
        return before._replace(count=before.count + 1, seconds=before.seconds + seconds, total=total)
    depth = before.depth + 1
    if depth % MOST_STEPS == 0:
        before = _cut(before)
    return Step(name, task, 1, seconds, total, depth, before)


def _cut(last: Step) -> Step:
    """The same chain, of which the second half is remembered."""
    kept = [last]
    while len(kept) < MOST_STEPS // 2 and kept[-1].before is not None:
        kept.append(kept[-1].before)
    chain = kept.pop()._replace(before=None)
    while kept:
        chain = kept.pop()._replace(before=chain)
    return chain
