"""The queue: spans of tasks that no worker has, in the order in which they will be handed out. Pure."""

from collections import OrderedDict, deque
from itertools import chain

from taskfarm.schedule.spans import SINGLES, Span


class TaskQueue:
    """Spans by the id of their first task, first come, first served; apart from them, second tries.

    Attributes
    ----------
    retries : dict of int to deque of Span
        Single tasks that will be tried again, by the worker on which they failed.
    """

    def __init__(self) -> None:
        self._spans: OrderedDict[int, Span] = OrderedDict()
        self.retries: dict[int, deque[Span]] = {}

    def __bool__(self) -> bool:
        return bool(self._spans or self.retries)

    @property
    def has_spans(self) -> bool:
        """Whether something other than second tries is queued."""
        return bool(self._spans)

    @property
    def count(self) -> int:
        """Tasks in all spans."""
        return sum(span.count for span in chain(self._spans.values(), *self.retries.values()))

    @property
    def head(self) -> Span | None:
        """The span that is next, second tries apart."""
        return next(iter(self._spans.values()), None)

    def append_retry(self, span: Span, failed_on: int) -> None:
        """Queue a task that has failed on a worker."""
        self.retries.setdefault(failed_on, deque()).append(span)

    def take_retry(self, worker: int, alone: bool) -> list[Span]:
        """Take a second try for a worker: one that failed on another, unless it is the only one."""
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
        """Queue one task at the end; it joins the one before it in one span, if it can."""
        last = next(reversed(self._spans.values()), None)
        if last and last.source == SINGLES and last.function == function and last.end == task:
            self._spans[last.first] = Span(SINGLES, last.first, last.count + 1, function)
        else:
            self._spans[task] = Span(SINGLES, task, 1, function)

    def push_front(self, span: Span) -> None:
        """Queue a span at the head."""
        self._spans[span.first] = span
        self._spans.move_to_end(span.first, last=False)

    def take(self, count: int) -> list[Span]:
        """Take spans of at most `count` tasks off the head, of one function and chunk."""
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
        """Take out those of the `count` tasks from `first` on that are here."""
        span = self._spans.get(first)
        if span and span.count == count:
            del self._spans[first]
            return [span]
        kept: OrderedDict[int, Span] = OrderedDict()
        taken = self._remove_retries(first, count)
        for span in self._spans.values():
            low, high = max(span.first, first), min(span.end, first + count)
            if low >= high:
                kept[span.first] = span
                continue
            before, rest = span.split(low - span.first)
            inside, after = rest.split(high - low)
            taken.append(inside)
            kept.update((part.first, part) for part in (before, after) if part.count)
        self._spans = kept
        return taken

    def _remove_retries(self, first: int, count: int) -> list[Span]:
        """Take out the second tries of some tasks."""
        taken = []
        for failed_on, spans in list(self.retries.items()):
            inside = [span for span in spans if first <= span.first < first + count]
            if inside:
                taken += inside
                kept = deque(span for span in spans if not first <= span.first < first + count)
                self.retries[failed_on] = kept
                if not kept:
                    del self.retries[failed_on]
        return taken

    def clear(self) -> list[Span]:
        """Take out all spans."""
        spans = [*self._spans.values(), *chain(*self.retries.values())]
        self._spans.clear()
        self.retries.clear()
        return spans
