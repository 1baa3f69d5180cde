"""A span: tasks with consecutive ids that call one function."""

from typing import NamedTuple

SINGLES = -1
"""The source of a span whose tasks were queued one by one: each is a source of its own."""


class Span(NamedTuple):
    """Tasks with consecutive ids that call one function: submits in a row, or a slice of a map.

    Attributes
    ----------
    source : int
        Where the master keeps the arguments: the id of the first task that was queued with them,
        or `SINGLES`.
    first : int
        Id of the first task.
    count : int
        Number of tasks, at least 1.
    function : int
        Id of the function; durations are estimated for each.
    chunk : int
        Tasks to send at once, or 0 to leave it to the farm.
    """

    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    function: int
    chunk: int = 0

    @property
    def end(self) -> int:
        """Id after that of the last task."""
        return self.first + self.count

    def split(self, count: int) -> tuple["Span", "Span"]:
        """Cut after `count` tasks."""
        source, first, total, function, chunk = self
        return (
            Span(source, first, count, function, chunk),
            Span(source, first + count, total - count, function, chunk),
        )
