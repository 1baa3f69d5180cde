"""The queue: spans of tasks that no worker has, in the order in which they will be handed out. Pure."""

from collections import OrderedDict

from taskfarm.task import SINGLES, Span


class Backlog:
    """Spans by the id of their first task, first come, first served."""

    def __init__(self) -> None:
        self._spans: OrderedDict[int, Span] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def count(self) -> int:
        """Tasks in all spans."""
        return sum(span.count for span in self._spans.values())

    @property
    def head(self) -> Span:
        """The span that is next; there must be one."""
        return next(iter(self._spans.values()))

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

    def put_back(self, span: Span) -> None:
        """Queue a span at the head."""
        self._spans[span.first] = span
        self._spans.move_to_end(span.first, last=False)

    def take(self, count: int) -> list[Span]:
        """Take spans of at most `count` tasks off the head, of one function and chunk."""
        head = self.head
        if head.count == count:
            return [self._spans.pop(head.first)]
        spans: list[Span] = []
        while count and self._spans:
            span = self._spans.popitem(last=False)[1]
            if span.function != head.function or span.chunk != head.chunk:
                self.put_back(span)
                break
            if span.count > count:
                span, rest = span.split(count)
                self.put_back(rest)
            spans.append(span)
            count -= span.count
        return spans

    def cut_out(self, first: int, count: int) -> list[Span]:
        """Take out those of the `count` tasks from `first` on that are here."""
        span = self._spans.get(first)
        if span and span.count == count:
            del self._spans[first]
            return [span]
        kept: OrderedDict[int, Span] = OrderedDict()
        taken = []
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

    def clear(self) -> list[Span]:
        """Take out all spans."""
        spans = list(self._spans.values())
        self._spans.clear()
        return spans
