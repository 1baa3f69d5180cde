"""The queue of a farm whose tasks submit tasks: descendants first, the newest of the deepest. Pure."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.spans import Span

if TYPE_CHECKING:
    from taskfarm.schedule.lanes import LaneQueue

NESTED_BATCH = 4
"""Most tasks in a batch of a function whose tasks submit tasks, or were submitted by one.

A batch runs as a whole before the tasks that it submits. So the queue of a tree holds at most about this
number, times the depth, times the branches, times the workers.
"""


LONG_QUEUE = 400
"""Queued tasks from which on tasks that submit are sent one by one: the deepest, which submit least."""


def nested_size(size: int, queued: int, workers: int) -> int:
    """Tasks in a batch of a function whose tasks submit tasks, for the usual size of a batch."""
    if queued >= LONG_QUEUE:
        return 1
    return min(size, NESTED_BATCH, max(1, queued // (4 * workers)))


class Family:
    """The queued tasks that one running task has submitted, and the families below it.

    When its task has ended, what is queued belongs to the nearest ancestor that has not: only a task that
    runs can wait for its descendants, so the levels are as many as tasks that run inside each other.

    Attributes
    ----------
    parent : Family or None
        The family in which its task is a member; None for the root, which has no task.
    queue : TaskQueue
        The members, newest first.
    active : dict of Family
        The families below that have queued tasks, the newest last.
    ended : bool
        Whether its task has ended; its parent stands for it then.
    """

    __slots__ = ("active", "ended", "parent", "queue")

    def __init__(self, parent: "Family | None") -> None:
        self.parent = parent
        self.queue = TaskQueue()
        self.active: dict[Family, None] = {}
        self.ended = False

    @property
    def is_active(self) -> bool:
        """Whether it, or a family below it, has queued tasks."""
        return bool(self.queue or self.active)


def living(family: Family) -> Family:
    """The family that stands for this one now."""
    found = family
    while found.ended and found.parent is not None:
        found = found.parent
    while family is not found:
        # Chains of tasks that have ended may be long: each is passed only once.
        assert family.parent is not None
        family.parent, family = found, family.parent
    return found


class NestedQueue(TaskQueue):
    """Takes the place of the queue of a farm once one of its tasks has submitted tasks.

    Tasks that tasks have submitted come before the others, the deepest and newest first: so a tree is run
    depth first, and the queue stays short. A retry of such a task comes first among them, and may run on
    the worker on which it failed: that one may be the only one that can run it.

    Parameters
    ----------
    others : TaskQueue
        The queue of the tasks that the job has submitted.
    """

    def __init__(self, others: TaskQueue) -> None:
        self._others = others
        self.retries = others.retries
        self._root = Family(None)
        self._families: dict[int, Family] = {}
        self._family_of: dict[int, Family] = {}

    def __bool__(self) -> bool:
        return self._root.is_active or bool(self._others)

    @property
    def lanes(self) -> "LaneQueue | None":
        """The lanes of the tasks that the job has submitted, if these have any."""
        return self._others.lanes

    def with_lanes(self, make: "Callable[[TaskQueue], LaneQueue]") -> TaskQueue:
        """Give lanes to the tasks that the job has submitted; those of tasks come first anyway."""
        self._others = make(self._others)
        self.retries = self._others.retries
        return self

    @property
    def has_nested(self) -> bool:
        """Whether tasks are queued that a task has submitted."""
        return self._root.is_active

    def parts(self) -> list[TaskQueue]:
        """The queues of the tasks that the job has submitted: what a task waits for is never set aside."""
        return self._others.parts()

    def spans(self) -> Iterator[Span]:
        """All spans: those of tasks, then the others."""
        nested = chain.from_iterable(family.queue.spans() for family in self._below(self._root))
        return chain(nested, self._others.spans())

    @property
    def has_spans(self) -> bool:
        return self._root.is_active or self._others.has_spans

    @property
    def count(self) -> int:
        return self._others.count + sum(family.queue.count for family in self._below(self._root))

    @property
    def head(self) -> Span | None:
        newest = _newest(self._root)
        return self._others.head if newest is None else newest.queue.head

    def head_below(self, task: int) -> Span | None:
        """The next span of a task's descendants; None if none is queued."""
        family = self._families.get(task)
        newest = None if family is None else _newest(family)
        return None if newest is None else newest.queue.head

    def is_nested(self, span: Span) -> bool:
        """Whether a task has submitted the tasks of a span."""
        return span.source in self._family_of

    def add(self, span: Span, parent: int, parent_source: int, waits: bool) -> None:
        """Queue tasks that the task `parent` has submitted, which itself belongs to `parent_source`.

        If it `waits` for results, `append_next` will queue it.
        """
        family = self._families.get(parent)
        if family is None:
            above = self._family_of.get(parent_source, self._root)
            family = self._families[parent] = Family(above)
        self._family_of[span.source] = family
        if not waits:
            self._put(family, span)

    def end(self, task: int) -> None:
        """Note that a task has ended: what it has submitted belongs to the nearest ancestor that runs."""
        family = self._families.pop(task, None)
        if family is None:
            return
        assert family.parent is not None
        above = living(family.parent)
        family.ended = True
        above.active.pop(family, None)
        for span in reversed(family.queue.clear()):
            self._put(above, span)
        for below in family.active:
            below.parent = above
            above.active[below] = None
        family.active.clear()
        if above.is_active:
            self._activate(above)
        else:
            _deactivate(above)

    def forget_source(self, source: int) -> None:
        """Drop what is kept of tasks that were submitted together and have all ended."""
        self._family_of.pop(source, None)

    def push_front(self, span: Span) -> None:
        family = self._family_of.get(span.source)
        if family is None:
            self._others.push_front(span)
        else:
            self._put(family, span)

    def put_back(self, span: Span) -> None:
        if self.is_nested(span):
            self.push_front(span)
        else:
            self._others.put_back(span)

    def append_retry(self, span: Span, failed_on: int) -> None:
        if self.is_nested(span):
            self.push_front(span)
        else:
            self._others.append_retry(span, failed_on)

    def take_retry(self, worker: int, alone: bool) -> list[Span]:
        return self._others.take_retry(worker, alone)

    def append(self, span: Span) -> None:
        self._others.append(span)

    def append_single(self, task: int, function: int) -> None:
        self._others.append_single(task, function)

    def append_next(self, span: Span) -> None:
        if self.is_nested(span):
            self.push_front(span)
        else:
            self._others.append_next(span)

    def take(self, count: int) -> list[Span]:
        newest = _newest(self._root)
        return self._others.take(count) if newest is None else self._take(newest, count)

    def take_below(self, task: int, count: int) -> list[Span]:
        """Take at most `count` of a task's descendants."""
        newest = _newest(self._families[task])
        assert newest is not None
        return self._take(newest, count)

    def remove(self, first: int, count: int) -> list[Span]:
        family = self._family_of.get(first)
        removed = self._others.remove(first, count) if family is None else []
        if family is None:
            # Tasks of a map may be removed by a part of them.
            holding = [one for one in self._below(self._root) if one.queue]
        else:
            holding = [living(family)]
        for one in holding:
            removed += one.queue.remove(first, count)
            if not one.is_active:
                _deactivate(one)
        return removed

    def clear(self) -> list[Span]:
        spans = self._others.clear()
        for family in list(self._below(self._root)):
            spans += family.queue.clear()
            family.active.clear()
        return spans

    def _put(self, family: Family, span: Span) -> None:
        family = living(family)
        family.queue.push_front(span)
        self._activate(family)

    @staticmethod
    def _activate(family: Family) -> None:
        while family.parent is not None:
            above = living(family.parent)
            if family in above.active:
                return
            above.active[family] = None
            family = above

    @staticmethod
    def _take(family: Family, count: int) -> list[Span]:
        spans = family.queue.take(min(count, NESTED_BATCH))
        if not family.is_active:
            _deactivate(family)
        return spans

    @staticmethod
    def _below(family: Family) -> Iterator[Family]:
        waiting = deque([family])
        while waiting:
            found = waiting.popleft()
            yield found
            waiting.extend(found.active)


def _newest(family: Family) -> Family | None:
    """The deepest family with queued tasks, the newest one on each level; None if there is none."""
    while family.active:
        family = next(reversed(family.active))
    return family if family.queue else None


def _deactivate(family: Family) -> None:
    """Note that a family has no queued tasks any more."""
    while not family.is_active and family.parent is not None:
        above = living(family.parent)
        above.active.pop(family, None)
        family = above
