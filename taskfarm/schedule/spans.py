"""Plain values: the states of a task, a span of tasks, a failure."""

from enum import IntEnum
from typing import Any, NamedTuple


class TaskState(IntEnum):
    """Where a task is; `scheduler.TRANSITIONS` says which state may follow which."""

    QUEUED = 1
    ASSIGNED = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5


END_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


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


class Blob(NamedTuple):
    """A pickle (protocol 5) and its out-of-band buffers, opaque to all that carry it.

    Attributes
    ----------
    data : bytes-like
        The pickle stream; a `pickle.PickleBuffer` if it is large.
    buffers : list
        Objects with the buffer protocol, in the order in which the pickle wants them.
    """

    data: Any
    buffers: list[Any]


class Failure(NamedTuple):
    """How one task failed, ready to travel.

    Attributes
    ----------
    exception : Blob
        The pickled exception.
    summary : str
        One line: the type and text of the exception.
    trace : str
        The remote traceback, headed by task, rank and host.
    note : str
        That head, and what to do if it is known.
    """

    exception: Blob
    summary: str
    trace: str
    note: str = ""


class Counts(NamedTuple):
    """Tasks by state, how often some were tried again, and workers."""

    queued: int
    assigned: int
    done: int
    failed: int
    cancelled: int
    retried: int
    workers: int
    busy: int

    @property
    def total(self) -> int:
        """Tasks submitted so far."""
        return self.queued + self.unqueued

    @property
    def unqueued(self) -> int:
        """Tasks that have left the queue."""
        return self.assigned + self.ended

    @property
    def ended(self) -> int:
        """Tasks in an end state."""
        return self.done + self.failed + self.cancelled
