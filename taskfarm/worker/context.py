"""What a task can ask about itself."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Protocol

from taskfarm.errors import UsageError

if TYPE_CHECKING:
    from numpy.random import Generator


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

    def rng(self) -> "Generator":
        """Its generator of random numbers."""


IN_TASK: ContextVar[Running | None] = ContextVar("taskfarm_in_task", default=None)
"""What runs the present code as a task; None elsewhere."""


def current() -> Current:
    """The task that calls this: its id, name, attempt, rank and host.

    Raises
    ------
    UsageError
        The caller is not a task, or is a thread that a task has started.
    """
    return _running("current").current()


def rng() -> "Generator":
    """A generator of random numbers for the task that calls this.

    Its stream depends on the farm's seed (``run --seed``) and on which task it is alone: the how-manieth
    submit, or the how-manieth map and the place in it. So it is the same for any number of workers, in any
    order, when a task is tried again and when a run is resumed, and independent of that of every other task
    (`numpy.random.SeedSequence`; O'Neill, "Developing a seed_seq alternative", 2015).

    Returns
    -------
    numpy.random.Generator
        The same one each time that a task asks.

    Raises
    ------
    UsageError
        The caller is not a task, or is a thread that a task has started.
    """
    return _running("rng").rng()


def _running(asked: str) -> Running:
    running = IN_TASK.get()
    if running is None:
        raise UsageError(f"only a task is a task: call taskfarm.{asked}() in one, not in the job itself")
    return running
