"""The context of a task: what it can ask about itself."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from taskfarm.errors import UsageError

if TYPE_CHECKING:
    from numpy.random import Generator

    from taskfarm.protocol.messages import Part
    from taskfarm.worker.runner import Runner
    from taskfarm.worker.spawning import Spawner


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


class _Run:
    """What all tasks of this process share.

    Attributes
    ----------
    ends : float
        When the walltime is up, in seconds of `time.monotonic`, which all processes of a host share;
        infinite if there is no such time.
    """

    ends = math.inf


RUN = _Run()
"""The run that this process takes part in."""


class CurrentTask(NamedTuple):
    """The task that is running.

    Attributes
    ----------
    task : int
        Its id: tasks are numbered in the order in which the job submitted them.
    name : str
        The name of its function.
    attempt : int
        1 for the first attempt, 2 for the first retry.
    rank, host : int, str
        Who runs it.
    rows : range or None
        In a call of ``map_array``, the rows of the arrays that its blocks hold.
    left : float
        Seconds that remain until the walltime of the run is up, at most 0 if it is over; infinite without
        ``--walltime``.
    units : dict of str to tuple of int
        Which units it has of each resource that it needs: numbers from 0 on; for ``gpu`` of
        ``--gpus-per-node``, that of its device. What cannot be counted, as bytes, has none.
    """

    task: int
    name: str
    attempt: int
    rank: int
    host: str
    rows: range | None = None
    left: float = math.inf
    units: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class TaskContext:
    """Tracks which task of a part is running.

    Parameters
    ----------
    place : Place
        Rank and host.
    runner : Runner or None
        What runs the tasks; None if they cannot submit tasks.

    Attributes
    ----------
    part : Part or None
        The part that is running; None between batches.
    results : list
        Its results so far. The list grows while a block of calls runs in C, so its length tells which
        task is running.
    seed : int
        The seed of its farm.
    drew : bool
        Whether a task of the part has asked for random numbers.
    rows : range or None
        The rows that the task works on.
    comm, gang_rank : MPI.Intracomm and int, or None
        The communicator of a task that runs on several ranks, and the rank of this process in it.
    spawned : list of (int, int)
        What tasks of the part have submitted: the numbers of the first calls, and how many.
    joins : dict of int to list of int
        The numbers of the futures in results, by offset.
    finished : int or None
        While something is done for a task that has returned: its offset in the part.
    """

    def __init__(self, place: Place, runner: "Runner | None" = None) -> None:
        self._place = place
        self._runner = runner
        self.spawned: list[tuple[int, int]] = []
        self.joins: dict[int, list[int]] = {}
        self.finished: int | None = None
        self._spawning = -1
        self._streams = self._submits = 0
        self.part: Part | None = None
        self._name = ""
        self.results: list[Any] = []
        self.seed = 0
        self.drew = False
        self.rows: range | None = None
        self.comm: Any = None
        self.gang_rank: int | None = None
        self._generator: tuple[int, Generator] | None = None

    def begin(self, part: "Part", name: str, results: list[Any], seed: int) -> None:
        """Begin a part, whose results will be appended to `results`; `seed` is that of its farm."""
        self.part, self._name, self.results, self.seed = part, name, results, seed
        self._generator = None
        self.drew = False
        if self.spawned:
            self.spawned, self._spawning = [], -1

    def end(self) -> None:
        """Note that nothing is running any more."""
        self.part = self._generator = None

    @property
    def task(self) -> int:
        """The id of the task that is running."""
        assert self.part is not None
        return self.part.first + self.at

    @property
    def at(self) -> int:
        """The offset in the part of the task that is running."""
        return len(self.results) if self.finished is None else self.finished

    @property
    def spawner(self) -> "Spawner":
        """The farm of the task that is running, for the task itself.

        Raises
        ------
        UsageError
            There is none.
        """
        if self._runner is None:
            raise UsageError("this task cannot submit tasks: call the function directly")
        return self._runner.spawner

    def next_stream(self, of_map: bool) -> tuple[tuple[int, ...], int]:
        """The random stream of what the running task submits now, and the index of the first call in it.

        Single calls share one stream; each map has one of its own.
        """
        assert self.part is not None
        at = self.at
        if self._spawning != at:
            self._spawning, self._streams, self._submits = at, 0, 0
        stream = self.part.stream
        key = (*(stream if isinstance(stream, tuple) else (stream,)), self.part.index + at)
        if of_map:
            self._streams += 1
            return (*key, self._streams), 0
        self._submits += 1
        return (*key, 0), self._submits - 1

    def current(self) -> CurrentTask:
        """The task that is running."""
        assert self.part is not None
        rank, host, _ = self._place
        left = RUN.ends - time.monotonic()
        units = dict(self.part.units or {})
        return CurrentTask(self.task, self._name, self.part.attempt, rank, host, self.rows, left, units)

    def rng(self) -> "Generator":
        """The generator of the task that is running: the same for all of its calls."""
        import numpy as np

        assert self.part is not None
        self.drew = True
        at = len(self.results)
        if self._generator is None or self._generator[0] != at:
            stream = self.part.stream
            key = (*(stream if isinstance(stream, tuple) else (stream,)), self.part.index + at)
            if self.gang_rank is not None:
                key = (*key, self.gang_rank)
            generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            self._generator = (at, generator)
        return self._generator[1]


IN_TASK: ContextVar[TaskContext | None] = ContextVar("taskfarm_in_task", default=None)
"""The context of the code that runs now; None outside of tasks."""


@contextlib.contextmanager
def rows_of_task(rows: range) -> Iterator[None]:
    """Note which rows the task that calls this works on."""
    context = _context("current")
    context.rows = rows
    try:
        yield
    finally:
        context.rows = None


def current() -> CurrentTask:
    """The task that calls this: its id, name, attempt, rank and host, and how many seconds are left.

    The attribute ``rows`` tells which rows a call of ``map_array`` works on.

    Raises
    ------
    UsageError
        The caller is not a task, or is a thread that a task has started.
    """
    return _context("current").current()


def rng() -> "Generator":
    """A random number generator for the task that calls this.

    Its stream depends only on the farm's seed (``run --seed``) and on which task it is: the index of its
    submit, or the index of its map and its position in it. So it is the same for any number of workers,
    in any order, when the task is retried and when a run is resumed, and it is independent of the streams
    of all other tasks (`numpy.random.SeedSequence`; O'Neill, "Developing a seed_seq alternative", 2015).

    Returns
    -------
    numpy.random.Generator
        The same object each time the task asks.

    Raises
    ------
    UsageError
        The caller is not a task, or is a thread that a task has started.
    """
    return _context("rng").rng()


def comm() -> Any:
    """The communicator of the ranks that run the task together, and of no others.

    Where ``ranks`` is 1, and outside of tasks, it is that of this process alone. So the same function runs
    on any number of ranks, and when it is called directly. Do not free it: the next task uses it again.

    Returns
    -------
    mpi4py.MPI.Intracomm
        ``MPI.COMM_SELF`` for one rank.

    Raises
    ------
    UsageError
        The caller is a thread that a task has started, or mpi4py finds no MPI.
    """
    context = IN_TASK.get()
    if context is not None and context.comm is not None:
        return context.comm
    try:
        from taskfarm.transport.groups import alone
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"taskfarm.comm() needs an MPI library ({reason}): `pip install mpich`") from error
    return alone()


def _context(asked: str) -> TaskContext:
    context = IN_TASK.get()
    if context is None:
        raise UsageError(
            f"taskfarm.{asked}() works only inside a task: call it there, not in the job itself"
        )
    return context


class _Inline:
    """Entered while tasks run in the job's own process.

    Attributes
    ----------
    thread : int or None
        The thread that runs them, if there was no other when they began: all others are theirs.
    """

    thread: int | None = None
    _depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1 and threading.active_count() == 1:
            self.thread = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.thread = None


INLINE = _Inline()


def refuse_thread_of_task() -> NoReturn:
    """Raise UsageError: the caller is a thread that a task has started."""
    raise UsageError(
        "only the thread that runs a task can submit tasks and wait for them: let the task itself do that"
    )


def refuse_in_task() -> None:
    """Raise UsageError if the caller is a task."""
    if IN_TASK.get() is not None:
        raise UsageError(
            "a task cannot open or use a Farm: call submit or map of a @task function, which uses the farm "
            "of the task"
        )
