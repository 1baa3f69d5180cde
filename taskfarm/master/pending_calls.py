"""What is queued and whose it is: the arguments, the function and the owner of every unfinished task."""

from collections.abc import Iterator
from typing import NamedTuple

from taskfarm.master.interfaces import Owner, Post
from taskfarm.protocol.arguments import Arguments, join_calls
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Part
from taskfarm.protocol.outcomes import Completed
from taskfarm.schedule.spans import SINGLES, Span


class Source(NamedTuple):
    """What was queued together: when, if somebody records that, and which numbers its tasks have."""

    arguments: Arguments
    owner: Owner
    function: RegisteredFunction
    keys: list[bytes]
    queued: float
    stream: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index


class Sources:
    """The sources by the id of their first task.

    A map queues many tasks as one source. Single tasks are a source each, but travel and return
    together in spans whose source is `SINGLES`.
    """

    def __init__(self) -> None:
        self._sources: dict[int, Source] = {}
        self._left: dict[int, int] = {}

    def add(self, first: int, source: Source, single: bool) -> None:
        """Enter a source; a single one has one task."""
        self._sources[first] = source
        if not single:
            self._left[first] = source.arguments.count
        source.function.users += 1

    def of_task(self, source: int, first: int) -> Source:
        """What a task was queued with, by its source and id."""
        return self._sources[first if source == SINGLES else source]

    def function_of(self, span: Span) -> RegisteredFunction:
        """The function of a span."""
        return self.of_task(span.source, span.first).function

    def advance(self, source: int, ended: int, failed: int, again: int = 0) -> None:
        """Tell the owner of several tasks that some have ended, and some will be tried again."""
        if source != SINGLES:
            self._sources[source].owner.advance(ended, failed, again)

    def keys(self, span: Span) -> list[bytes]:
        """What names the calls of a span in the journal, if one is kept."""
        if span.source == SINGLES:
            return [self._sources[task].keys[0] for task in range(span.first, span.end)]
        start = span.first - span.source
        return self._sources[span.source].keys[start : start + span.count]

    def part(self, span: Span, attempt: int) -> Part:
        """The calls of a span as they travel; the owners are told that they start."""
        source, first, count, function, _ = span
        if source == SINGLES:
            singles = [self._sources[task] for task in range(first, first + count)]
            for single in singles:
                single.owner.start()
            calls = join_calls([single.arguments for single in singles])
            stream, index = singles[0].stream, singles[0].index
        else:
            arguments, owner, _, _, _, stream, start = self._sources[source]
            owner.start()
            calls = arguments.slice(first - source, count)
            index = start + first - source
        return Part(function, source, first, count, calls, attempt, stream, index)

    def complete(self, source: int, completed: Completed, post: Post, as_wished: bool) -> None:
        """Post outcomes to their owners, and drop what is kept of the tasks.

        Where `as_wished`, their policy says what becomes of errors.
        """
        first, count = completed.first, len(completed.values)
        one = self.of_task(source, first)
        on_error = one.function.policy.on_error if as_wished and completed.failures else "raise"
        if source == SINGLES:
            for offset in range(count):
                post.put(self._sources[first + offset].owner, completed, offset, on_error)
        else:
            post.put(one.owner, completed, None, on_error)
        self.release(source, first, count)

    def release(self, source: int, first: int, count: int) -> None:
        """Drop what is kept of `count` tasks from `first` on: arguments go with the last of a source."""
        if source == SINGLES:
            for task in range(first, first + count):
                self._sources.pop(task).function.users -= 1
            return
        self._left[source] -= count
        if not self._left[source]:
            del self._left[source]
            self._sources.pop(source).function.users -= 1

    def of(self, owner: Owner) -> Iterator[tuple[int, int]]:
        """First task and number of tasks of each source of an owner."""
        for first, source in list(self._sources.items()):
            if source.owner is owner:
                yield first, source.arguments.count
