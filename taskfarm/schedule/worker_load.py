"""What one worker has in hand, as the scheduler sees it. Pure."""

from dataclasses import dataclass, field

from taskfarm.schedule.batching import MAX_BATCHES
from taskfarm.schedule.spans import Span


@dataclass(slots=True)
class WorkerLoad:
    """Unfinished work of a worker.

    Attributes
    ----------
    spans : dict of int to (Span, float, int)
        Unfinished spans by first id: each with its estimated seconds, and the batch that it came in.
    batches : dict of int to int
        Unfinished spans of each batch.
    seconds : float
        Estimated seconds of work.
    tasks : int
        Unfinished tasks.
    last_answer : float
        When the worker last answered, or fell to work.
    recalled : bool
        Whether its unstarted work has been recalled since then; it gets no further batch meanwhile.
    patience : float
        How many times longer than usual to wait before its work is recalled. It doubles each time that
        the worker returns all its work without having started any: it was busy loading something, and would
        only be sent the same work again and again.
    """

    spans: dict[int, tuple[Span, float, int]] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    tasks: int = 0
    last_answer: float = 0.0
    recalled: bool = False
    patience: float = 1.0

    def needs_work(self, horizon: float) -> bool:
        """Whether the worker should get its next batch now: it has less than `horizon` seconds of work."""
        return self.seconds < horizon and len(self.batches) < MAX_BATCHES and not self.recalled

    def add(self, batch: int, spans: list[Span], seconds_each: float, now: float) -> None:
        """Take in a batch."""
        if not self.spans:
            # What it was asked to return is not with it any more.
            self.last_answer, self.recalled = now, False
        self.batches[batch] = len(spans)
        for span in spans:
            seconds = span.count * seconds_each
            self.spans[span.first] = (span, seconds, batch)
            self.seconds += seconds
            self.tasks += span.count

    def finish(self, first: int, count: int, now: float) -> Span | None:
        """Let go of the next `count` tasks of a span; None if there is no such span."""
        held = self.spans.pop(first, None)
        if held is None:
            return None
        self.last_answer, self.recalled, self.patience = now, False, 1.0
        span = held[0]
        if span.count == count:
            self._drop(held)
        else:
            self._shrink(held, span.split(count)[1])
        return span

    def remove_unstarted(self, first: int, count: int) -> Span | None:
        """Let go of the last `count` tasks of a span, from `first` on; None if they are not here."""
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
        kept, given = span.split(first - span.first)
        self._shrink(held, kept)
        return given

    def split_running(self) -> tuple[list[Span], list[Span]]:
        """The spans of the oldest batch, which the worker may be running, and the others."""
        oldest = min(self.batches, default=0)
        running = [span for span, _, batch in self.spans.values() if batch == oldest]
        return running, [span for span, _, batch in self.spans.values() if batch != oldest]

    def _shrink(self, held: tuple[Span, float, int], rest: Span) -> None:
        """Keep `rest` of a span that was taken out."""
        span, estimate, batch = held
        spent = estimate * (span.count - rest.count) / span.count
        self.tasks -= span.count - rest.count
        self.seconds -= spent
        self.spans[rest.first] = (rest, estimate - spent, batch)

    def _drop(self, held: tuple[Span, float, int]) -> None:
        """Keep nothing of a span that was taken out."""
        span, estimate, batch = held
        self.tasks -= span.count
        self.batches[batch] -= 1
        if not self.batches[batch]:
            del self.batches[batch]
        self.seconds = self.seconds - estimate if self.spans else 0.0
