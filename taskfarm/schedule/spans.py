"""A span: tasks with consecutive ids that call one function."""

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

    def split(self, count: int) -> tuple["Span", "Span"]:
        """Split the span after `count` tasks."""
        source, first, total, function, chunk = self
        return (
            Span(source, first, count, function, chunk),
            Span(source, first + count, total - count, function, chunk),
        )
