"""A span: tasks with consecutive ids that call one function."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

SINGLES = -1
"""The source of a span whose tasks were queued one by one: each task is its own source."""

new_tuple = tuple.__new__
"""Makes a named tuple of all its fields in one call of C; its own constructor is a function in Python."""


class Span(NamedTuple):
    """Tasks with consecutive ids that call one function: consecutive submits, or a slice of a map.

    Attributes
    ----------
    source : int
        Key of the arguments on the master: the id of the first task that was queued with them, or
        `SINGLES`.
    first : int
        Id of the first task.
    count : int
        Number of tasks, at least 1.
    function : int
        Id of the function; durations are estimated per function.
    chunk : int
        Tasks per batch; 0 lets the farm choose.
    """

    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    function: int
    chunk: int = 0

    @property
    def end(self) -> int:
        """Id of the last task, plus 1."""
        return self.first + self.count

    def precedes(self, other: "Span") -> bool:
        """Whether the tasks of another span follow those of this one, so that both can be one span."""
        return self.end == other.first and self[0] == other[0] and self[3:] == other[3:]

    def cut_out(self, tasks: Iterable[int]) -> Iterator[tuple["Span", bool]]:
        """Yield the span in pieces: each of some of its tasks, in order (True), and what lies between."""
        rest = self
        for task in tasks:
            before, rest = rest.split(task - rest.first)
            single, rest = rest.split(1)
            if before.count:
                yield before, False
            yield single, True
        if rest.count:
            yield rest, False

    def split(self, count: int) -> tuple["Span", "Span"]:
        """Split the span after `count` tasks."""
        source, first, total, function, chunk = self
        return (
            Span(source, first, count, function, chunk),
            Span(source, first + count, total - count, function, chunk),
        )
