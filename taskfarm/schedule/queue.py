"""The queue: spans of tasks that no worker holds, in the order in which they will be assigned. Pure."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from taskfarm.schedule.spans import SINGLES, Span, new_tuple

if TYPE_CHECKING:
    from taskfarm.schedule.lanes import LaneQueue


class TaskQueue:
    """Spans by the id of their first task, first come, first served; retries are kept apart.

    Attributes
    ----------
    retries : dict of int to deque of Span
        Single tasks to retry, by the worker on which they failed.
    """

    def __init__(self) -> None:
        self._spans: OrderedDict[int, Span] = OrderedDict()
        self.retries: dict[int, deque[Span]] = {}

    def __bool__(self) -> bool:
        return bool(self._spans or self.retries)

    @property
    def has_spans(self) -> bool:
        """Whether anything other than retries is queued."""
        return bool(self._spans)

    @property
    def has_nested(self) -> bool:
        """Whether tasks are queued that a task has submitted."""
        return False

    @property
    def lanes(self) -> "LaneQueue | None":
        """Its lanes, if it has any."""
        return None

    def with_lanes(self, make: "Callable[[TaskQueue], LaneQueue]") -> "TaskQueue":
        """What takes the place of this queue when tasks get lanes."""
        return make(self)

    def parts(self) -> "list[TaskQueue]":
        """The queues of which each has a head of its own."""
        return [self]

    def spans(self) -> Iterator[Span]:
        """All spans: the retries, then the others in the order in which they will be assigned."""
        return chain(*self.retries.values(), self._spans.values())

    @property
    def count(self) -> int:
        """Number of tasks, retries included."""
        return sum(span.count for span in self.spans())

    @property
    def head(self) -> Span | None:
        """The next span, retries apart."""
        return next(iter(self._spans.values()), None)

    def append_retry(self, span: Span, failed_on: int) -> None:
        """Queue a retry of a task that has failed on a worker."""
        self.retries.setdefault(failed_on, deque()).append(span)

    def take_retry(self, worker: int, alone: bool) -> list[Span]:
        """Take a retry for a worker: a task that failed on another one, unless this is the only worker."""
        for failed_on, spans in self.retries.items():
            if failed_on != worker or alone:
                span = spans.popleft()
                if not spans:
                    del self.retries[failed_on]
                return [span]
        return []

    def append(self, span: Span) -> None:
        """Queue a span at the end."""
        self._spans[span.first] = span

    def append_single(self, task: int, function: int) -> None:
        """Queue one task at the end; it extends the last span, if possible."""
        for source, first, count, of, chunk in reversed(self._spans.values()):
            if source == SINGLES and of == function and first + count == task and not chunk:
                self._spans[first] = new_tuple(Span, (SINGLES, first, count + 1, function, 0))
                return
            break
        self._spans[task] = new_tuple(Span, (SINGLES, task, 1, function, 0))

    def append_next(self, span: Span) -> None:
        """Queue a span at the end; it extends the last span, if that ends where it begins."""
        last = next(reversed(self._spans.values()), None)
        if last and last[0] == span.source and last[3:] == span[3:] and last.end == span.first:
            self._spans[last.first] = last._replace(count=last.count + span.count)
        else:
            self._spans[span.first] = span

    def push_front(self, span: Span) -> None:
        """Queue a span at the head."""
        self._spans[span.first] = span
        self._spans.move_to_end(span.first, last=False)

    def put_back(self, span: Span) -> None:
        """Queue a span again at the head, but after those that came before it."""
        earlier: list[Span] = []
        while self._spans and next(iter(self._spans)) < span.first:
            # Only what other workers have returned.
            earlier.append(self._spans.popitem(last=False)[1])
        self.push_front(span)
        for one in reversed(earlier):
            self.push_front(one)

    def take(self, count: int) -> list[Span]:
        """Take spans of at most `count` tasks, of one function and chunk, off the head."""
        head = next(iter(self._spans.values()))
        if head.count == count:
            return [self._spans.pop(head.first)]
        spans: list[Span] = []
        while count and self._spans:
            span = self._spans.popitem(last=False)[1]
            if span.function != head.function or span.chunk != head.chunk:
                self.push_front(span)
                break
            if span.count > count:
                span, rest = span.split(count)
                self.push_front(rest)
            spans.append(span)
            count -= span.count
        return spans

    def remove(self, first: int, count: int) -> list[Span]:
        """Remove and return those of the `count` tasks from `first` on that are queued."""
        span = self._spans.get(first)
        if span and span.count == count:
            del self._spans[first]
            return [span]
        kept: OrderedDict[int, Span] = OrderedDict()
        removed = self._remove_retries(first, count)
        for span in self._spans.values():
            low = max(span.first, first)
            high = min(span.end, first + count)
            if low >= high:
                kept[span.first] = span
                continue
            before, rest = span.split(low - span.first)
            inside, after = rest.split(high - low)
            removed.append(inside)
            for part in (before, after):
                if part.count:
                    kept[part.first] = part
        self._spans = kept
        return removed

    def _remove_retries(self, first: int, count: int) -> list[Span]:
        """Remove and return the retries among the `count` tasks from `first` on."""
        removed: list[Span] = []
        for failed_on, spans in list(self.retries.items()):
            inside = [span for span in spans if first <= span.first < first + count]
            if not inside:
                continue
            removed += inside
            kept = deque(span for span in spans if not first <= span.first < first + count)
            if kept:
                self.retries[failed_on] = kept
            else:
                del self.retries[failed_on]
        return removed

    def clear(self) -> list[Span]:
        """Remove and return all spans."""
        spans = [*self._spans.values(), *chain(*self.retries.values())]
        self._spans.clear()
        self.retries.clear()
        return spans
