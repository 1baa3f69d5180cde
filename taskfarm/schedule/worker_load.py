"""The unfinished work of one worker, as the scheduler knows it. Pure."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskfarm.schedule.batching import MAX_BATCHES
from taskfarm.schedule.spans import Span

if TYPE_CHECKING:
    from taskfarm.schedule.gangs import Gang


@dataclass(slots=True)
class WorkerLoad:
    """Unfinished work of one worker.

    Attributes
    ----------
    spans : dict of int to (Span, float, int)
        Unfinished spans by first id, each with its estimated seconds and the number of its batch.
    batches : dict of int to int
        Number of unfinished spans, by batch.
    held : set of int
        First ids of the spans that have been run, and whose results the worker holds back.
    seconds : float
        Estimated seconds of unfinished work.
    tasks : int
        Number of unfinished tasks.
    last_answer : float
        Time when the worker last answered, or was sent work while it had none.
    recalled : bool
        Whether its unstarted work has been recalled since then. Until it answers, it gets no batch.
    preparing : int
        Initializers that it has still to run.
    recall_backoff : float
        Factor on the time before its work is recalled. It doubles each time that the worker returns all
        its work without having started any. Such a worker is busy loading something, and would be
        sent the same work again and again.
    gang : Gang or None
        The task on several ranks of which it is a member; only the first member holds its span.
    suspended : set of int
        The tasks on this worker that have waited for tasks that they have submitted, and have not ended.
    """

    spans: dict[int, tuple[Span, float, int]] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    seconds: float = 0.0
    tasks: int = 0
    last_answer: float = 0.0
    recalled: bool = False
    preparing: int = 0
    recall_backoff: float = 1.0
    gang: "Gang | None" = None
    suspended: set[int] = field(default_factory=set)

    def needs_work(self, horizon: float) -> bool:
        """Whether to send the worker its next batch now: it has less than `horizon` seconds of work."""
        return self.seconds < horizon and len(self.batches) < MAX_BATCHES and not self.recalled

    def add(self, batch: int, spans: list[Span], seconds_each: float, now: float) -> None:
        """Add a batch."""
        if not self.spans:
            # The worker holds nothing that an earlier recall could return.
            self.last_answer = now
            self.recalled = False
        self.batches[batch] = len(spans)
        for span in spans:
            seconds = span.count * seconds_each
            self.spans[span.first] = (span, seconds, batch)
            self.seconds += seconds
            self.tasks += span.count

    def extend(self, batch: int, span: Span, seconds_each: float) -> None:
        """Add a span to a batch that was added just now."""
        self.batches[batch] += 1
        seconds = span.count * seconds_each
        self.spans[span.first] = (span, seconds, batch)
        self.seconds += seconds
        self.tasks += span.count

    def hold(self, first: int, count: int, now: float) -> Span | None:
        """Note that the next `count` tasks of a span have ended, but not their results; as `finish`."""
        entry = self.spans.get(first)
        if entry is None or entry[0].count < count:
            return None
        span, estimate, batch = entry
        self.spans[first] = (span, 0.0, batch)
        self.seconds = max(0.0, self.seconds - estimate)
        self.held.add(first)
        self.last_answer = now
        self.recalled = False
        return span

    def unfinished(self) -> list[Span]:
        """The spans whose tasks have not all ended."""
        return [span for span, _, _ in self.spans.values() if span.first not in self.held]

    def finish(self, first: int, count: int, now: float) -> Span | None:
        """Remove the next `count` tasks of a span; returns the span, or None if there is no such span."""
        held = self.spans.pop(first, None)
        if held is None:
            return None
        self.last_answer = now
        self.recalled = False
        self.recall_backoff = 1.0
        if self.held:
            self.held.discard(first)
        span = held[0]
        if span.count == count:
            self._drop(held)
        else:
            self._shrink(held, span.split(count)[1])
        return span

    def remove_unstarted(self, first: int, count: int) -> Span | None:
        """Remove and return the last `count` tasks of a span, from `first` on; None if not held."""
        for held in self.spans.values():
            span = held[0]
            if span.first <= first < span.end:
                break
        else:
            return None
        if first + count != span.end:
            return None
        del self.spans[span.first]
        if span.first == first:
            self._drop(held)
            return span
        kept, removed = span.split(first - span.first)
        self._shrink(held, kept)
        return removed

    def split_running(self) -> tuple[list[Span], list[Span]]:
        """Return the spans of the oldest batch, which the worker may be running, and the other spans."""
        unfinished = [batch for span, _, batch in self.spans.values() if span.first not in self.held]
        oldest = min(unfinished, default=0)
        running: list[Span] = []
        waiting: list[Span] = []
        for span, _, batch in self.spans.values():
            is_running = batch == oldest and span.first not in self.held
            (running if is_running else waiting).append(span)
        return running, waiting

    def _shrink(self, held: tuple[Span, float, int], rest: Span) -> None:
        """Put back the `rest` of a span that was removed."""
        span, estimate, batch = held
        removed = estimate * (span.count - rest.count) / span.count
        self.tasks -= span.count - rest.count
        self.seconds -= removed
        self.spans[rest.first] = (rest, estimate - removed, batch)

    def _drop(self, held: tuple[Span, float, int]) -> None:
        """Subtract a span that was removed entirely."""
        span, estimate, batch = held
        self.tasks -= span.count
        self.batches[batch] -= 1
        if not self.batches[batch]:
            del self.batches[batch]
        self.seconds = self.seconds - estimate if self.spans else 0.0
