"""What a task can ask about itself."""

from contextvars import ContextVar
from typing import NamedTuple, Protocol

from taskfarm.errors import UsageError


class Place(NamedTuple):
    """Where tasks run.

    Attributes
    ----------
    rank : int
        The worker's MPI rank.
    host : str
        Its host.
    child : bool
        Whether they run in a child process of the worker.
    """

    rank: int
    host: str
    child: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}){', child process' if self.child else ''}"


class Current(NamedTuple):
    """The task that is being run.

    Attributes
    ----------
    task : int
        Its id: tasks are numbered in the order in which the job asked for them.
    name : str
        The name of its function.
    attempt : int
        1 for the first try, 2 for the first retry.
    rank, host : int, str
        Who runs it.
    """

    task: int
    name: str
    attempt: int
    rank: int
    host: str


class Running(Protocol):
    """What runs tasks."""

    def current(self) -> Current:
        """The task that is being run now."""


IN_TASK: ContextVar[Running | None] = ContextVar("taskfarm_in_task", default=None)
"""What runs the present code as a task; None elsewhere."""


def current() -> Current:
    """The task that calls this: its id, name, attempt, rank and host.

    Raises
    ------
    UsageError
        The caller is not a task, or is a thread that a task has started.
    """
    running = IN_TASK.get()
    if running is None:
        raise UsageError("only a task is a task: call taskfarm.current() in one, not in the job itself")
    return running.current()
