"""The calls that have not ended: their arguments, their function, and the sink of their results."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from taskfarm.master.deliveries import Deliveries
from taskfarm.master.interfaces import Position, ResultSink
from taskfarm.protocol.arguments import Arguments, join_calls, join_columns
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Part
from taskfarm.protocol.outcomes import Completed
from taskfarm.schedule.spans import SINGLES, Span, new_tuple


class Source(NamedTuple):
    """Calls that were queued together.

    Attributes
    ----------
    arguments : Arguments
        Their arguments.
    sink : ResultSink
        Where their outcomes go.
    function : RegisteredFunction
        The function that they call.
    keys : list of bytes
        Their keys in the journal; empty if there is none.
    queued : float
        When they were queued, in seconds of the master's clock; 0 if nobody records it.
    stream, index : int
        Their random stream, and the index of the first call in it.
    """

    arguments: Arguments
    sink: ResultSink
    function: RegisteredFunction
    keys: list[bytes]
    queued: float
    stream: int | tuple[int, ...]
    index: int  # type: ignore[assignment]  # a field, not tuple.index


class PendingCalls:
    """Sources by the id of their first task.

    A map queues many tasks as one source. Single tasks are a source each, but travel and return
    together in spans whose source is `SINGLES`.
    """

    def __init__(self) -> None:
        self._sources: dict[int, Source] = {}
        self._left: dict[int, int] = {}

    def add(self, first: int, source: Source, single: bool) -> None:
        """Add a source; a single one has one task."""
        self._sources[first] = source
        if not single:
            self._left[first] = source.arguments.count
        source.function.users += 1

    def farm_of(self, first: int) -> int | None:
        """The farm of a source by the id of its first task; None if all its tasks have ended."""
        source = self._sources.get(first)
        return None if source is None else source.function.farm

    def name_of(self, task: int) -> str:
        """The name of the function that an unfinished task calls; empty if it has ended."""
        first = max((first for first in self._sources if first <= task), default=-1)
        source = self._sources.get(first)
        if source is None or task >= first + source.arguments.count:
            return ""
        return source.function.name

    def source_of(self, source: int, first: int) -> Source:
        """The source of a task, by its source id and its own id."""
        return self._sources[first if source == SINGLES else source]

    def single(self, task: int) -> Source | None:
        """The source of a task that was queued by itself; None if it has ended."""
        return self._sources.get(task)

    def sink_of(self, source: int, first: int) -> ResultSink | None:
        """The sink of a task, by its source id and its own id; None if it has ended."""
        found = self._sources.get(first if source == SINGLES else source)
        return None if found is None else found.sink

    def function_of(self, span: Span) -> RegisteredFunction:
        """The function of a span."""
        return self._sources[span.first if span.source == SINGLES else span.source].function

    def note_queued(self, span: Span, now: float) -> None:
        """Let the calls of a span count as queued from now on."""
        for first in range(span.first, span.end) if span.source == SINGLES else (span.source,):
            self._sources[first] = self._sources[first]._replace(queued=now)

    def update_progress(self, source: int, ended: int, failed: int, retried: int = 0) -> None:
        """Count tasks of a map that have ended, have failed, or will be retried."""
        if source != SINGLES:
            self._sources[source].sink.update_progress(ended, failed, retried)

    def keys(self, span: Span) -> list[bytes]:
        """The journal's keys of the calls of a span."""
        if span.source == SINGLES:
            return [self._sources[task].keys[0] for task in range(span.first, span.end)]
        start = span.first - span.source
        return self._sources[span.source].keys[start : start + span.count]

    def columns(self, span: Span) -> Sequence[Sequence[Any]]:
        """The plain arguments of the calls of a span, a column for each position; empty if some are not."""
        if span.source == SINGLES:
            singles = [self._sources[task].arguments.columns for task in range(span.first, span.end)]
            return join_columns(singles)
        start = span.first - span.source
        found = self._sources[span.source].arguments.columns
        return [[*column[start : start + span.count]] for column in found]

    def rng_position(self, span: Span) -> Position:
        """The random stream of the calls of a span, and the index of the first in it."""
        source = self.source_of(span.source, span.first)
        return source.stream, source.index + (0 if span.source == SINGLES else span.first - span.source)

    def make_part(self, span: Span, attempt: int) -> Part:
        """The calls of a span as they travel; their sinks are marked as running."""
        source, first, count, function, _ = span
        if source == SINGLES:
            sources = self._sources
            singles = []
            for task in range(first, first + count):
                arguments, sink, *_ = sources[task]
                sink.mark_running()
                singles.append(arguments)
            calls = singles[0].slice(0, 1) if count == 1 else join_calls(singles)
            *_, stream, index = sources[first]
        else:
            arguments, sink, _, _, _, stream, start = self._sources[source]
            sink.mark_running()
            calls = arguments.slice(first - source, count)
            index = start + first - source
        return new_tuple(Part, (function, source, first, count, calls, attempt, stream, index, None, False))

    def make_chained_part(self, span: Span) -> Part:
        """Single calls as they travel with others before them whose results they need."""
        singles = [self._sources[task] for task in range(span.first, span.end)]
        for single in singles:
            single.sink.mark_running()
        calls = [single.arguments.chained(0) for single in singles]
        stream, index = singles[0].stream, singles[0].index
        return Part(span.function, SINGLES, span.first, span.count, calls, 1, stream, index, chained=True)

    def complete(
        self,
        source: int,
        completed: Completed,
        deliveries: Deliveries,
        use_policy: bool = False,
        at_once: bool = False,
    ) -> None:
        """Hand on outcomes, and drop what was kept of their tasks.

        Parameters
        ----------
        source : int
            The source of the tasks.
        completed : Completed
            The outcomes.
        deliveries : Deliveries
            Where they are queued.
        use_policy : bool
            Whether the ``on_error`` of their function decides what becomes of exceptions.
        at_once : bool
            Whether futures may get results immediately, where that calls no code of users.
        """
        first, values, failures, _ = completed
        count, one = len(values), self._sources[first if source == SINGLES else source]
        on_error = one.function.policy.on_error if use_policy and failures else "raise"
        if source == SINGLES:
            pop, add = self._sources.pop, deliveries.add
            at_once = at_once and not failures
            for offset in range(count):
                _, sink, function, *_ = pop(first + offset)
                function.users -= 1
                if not (at_once and sink.complete_at_once(completed, offset)):
                    add(sink, completed, offset, on_error)
            return
        self.release(source, first, count)
        if not one.sink.complete_at_once(completed, 0):
            deliveries.add(one.sink, completed, None, on_error)

    def release(self, source: int, first: int, count: int) -> None:
        """Drop what is kept of `count` tasks; the arguments of a source go with its last task."""
        if source == SINGLES:
            for task in range(first, first + count):
                self._sources.pop(task).function.users -= 1
            return
        self._sources[source].arguments.take_back(first - source, count)
        self._left[source] -= count
        if not self._left[source]:
            del self._left[source]
            self._sources.pop(source).function.users -= 1

    def of_sink(self, sink: ResultSink) -> Iterator[tuple[int, int]]:
        """First task and number of tasks of each source of a sink."""
        for first, source in list(self._sources.items()):
            if source.sink is sink:
                yield first, source.arguments.count
