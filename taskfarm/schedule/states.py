"""The states of a task, and the number of tasks in each. Pure."""

from enum import IntEnum
from typing import NamedTuple


class TaskState(IntEnum):
    """State of a task; `TRANSITIONS` defines which state may follow which.

    A task is WAITING while results of others that it needs, or whose futures it has returned, are missing,
    and NOT_RUN if one of those others
    has failed.
    """

    QUEUED = 1
    ASSIGNED = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5
    WAITING = 6
    NOT_RUN = 7


END_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.NOT_RUN})


class Counts(NamedTuple):
    """Numbers of tasks by state, of retries, and of workers."""

    queued: int
    assigned: int
    done: int
    failed: int
    cancelled: int
    retried: int
    workers: int
    busy: int
    waiting: int = 0
    not_run: int = 0

    @property
    def total(self) -> int:
        """Tasks submitted so far."""
        return self.waiting + self.queued + self.unqueued

    @property
    def unqueued(self) -> int:
        """Tasks that have left the queue."""
        return self.assigned + self.ended

    @property
    def ended(self) -> int:
        """Tasks in an end state."""
        return self.done + self.failed + self.cancelled + self.not_run


TRANSITIONS: dict[TaskState | None, frozenset[TaskState]] = {
    None: frozenset(
        {TaskState.WAITING, TaskState.QUEUED, TaskState.ASSIGNED, TaskState.DONE, TaskState.FAILED}
    ),
    TaskState.WAITING: frozenset(
        {
            TaskState.QUEUED,
            TaskState.ASSIGNED,
            TaskState.DONE,
            TaskState.FAILED,
            TaskState.CANCELLED,
            TaskState.NOT_RUN,
        }
    ),
    TaskState.QUEUED: frozenset({TaskState.ASSIGNED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.ASSIGNED: frozenset(
        {TaskState.WAITING, TaskState.QUEUED, TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.DONE: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.NOT_RUN: frozenset(),
}
"""Which state may follow which; None is "not yet submitted"."""


class StateCounts:
    """Counts tasks by state.

    Attributes
    ----------
    tasks : dict of TaskState to int
        Tasks in each state.
    submitted : int
        Total number of tasks.
    retried : int
        Number of retries.
    """

    def __init__(self) -> None:
        self.tasks = dict.fromkeys(TaskState, 0)
        self.submitted = 0
        self.retried = 0

    def transition(self, count: int, old: TaskState | None, new: TaskState) -> None:
        """Record that `count` tasks change from one state to another."""
        if new not in TRANSITIONS[old]:
            raise AssertionError(f"a task cannot change from {old} to {new}")
        if old is None:
            self.submitted += count
        else:
            self.tasks[old] -= count
        self.tasks[new] += count

    def counts(self, workers: int, busy: int) -> Counts:
        """Return these counts together with those of the workers."""
        tasks = self.tasks
        return Counts(
            queued=tasks[TaskState.QUEUED],
            assigned=tasks[TaskState.ASSIGNED],
            done=tasks[TaskState.DONE],
            failed=tasks[TaskState.FAILED],
            cancelled=tasks[TaskState.CANCELLED],
            retried=self.retried,
            workers=workers,
            busy=busy,
            waiting=tasks[TaskState.WAITING],
            not_run=tasks[TaskState.NOT_RUN],
        )

    def check(self, queued: int, held: int, waiting: int) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        if queued != self.tasks[TaskState.QUEUED] or held != self.tasks[TaskState.ASSIGNED]:
            raise AssertionError(f"{queued} queued and {held} assigned, but counted {self.tasks}")
        if waiting != self.tasks[TaskState.WAITING]:
            raise AssertionError(f"{waiting} wait, but counted {self.tasks}")
        if sum(self.tasks.values()) != self.submitted or min(self.tasks.values()) < 0:
            raise AssertionError(f"{self.submitted} submitted, but counted {self.tasks}")
