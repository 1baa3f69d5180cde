"""The farm of this process: the only module-level state of taskfarm.

Tasks are decorated on workers, too, so this file loads neither the farm nor the master.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from taskfarm.console import say
from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError, UsageError
from taskfarm.protocol.sides import here
from taskfarm.worker.context import refuse_thread_of_task

if TYPE_CHECKING:
    from types import TracebackType

    from taskfarm.job.spmd import Block
    from taskfarm.master.master import Master


class OpenedFarm(Protocol):
    """A farm, as far as it is used here."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more tasks."""

    def shares_master_with(self, other: object) -> bool:
        """Whether it has the same workers as another farm."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish or cancel all tasks, and close the farm."""


class _OfThread(threading.local):
    """The farms of the ``with`` blocks that a thread is in, innermost last."""

    def __init__(self) -> None:
        self.farms: list[OpenedFarm] = []


class FarmRegistry:
    """Holds the farms and the master of this process.

    The current farm is that of the innermost ``with`` block of this thread; outside of such blocks, it is
    the farm that was opened last and is still open. Threads that the job starts are outside. A ContextVar
    would hide the farm from them, since they start with an empty context.

    Attributes
    ----------
    ending : bool
        Whether the job has ended, so that only callbacks may submit tasks.
    over : bool
        Whether the run has ended or the interpreter is shutting down: nothing may submit tasks any more.
    default : OpenedFarm or None
        The farm that tasks use if no other is open.
    lock : threading.RLock
        Held while farms are added and removed, and while the default farm is opened.
    blocks : dict of Master to Block
        The blocks that a program which all ranks run has not left; see `taskfarm.job.spmd`.
    with_ranks : str
        How to start this job with several ranks, for the line that says that there is one.
    """

    def __init__(self) -> None:
        self._master: Master | None = None
        self._configure: Callable[[Master], None] = lambda master: None
        self._opened: list[OpenedFarm] = []
        self._all: WeakSet[OpenedFarm] = WeakSet()
        self._entered = _OfThread()
        self._closes_in = 0
        self.ending = self.over = False
        self.default: OpenedFarm | None = None
        self.lock = threading.RLock()
        self.blocks: dict[Master, Block] = {}
        self.with_ranks = "python -m taskfarm run -n 4 job.py"

    def set_master(self, master: "Master | None") -> None:
        """Make `master` the one that every farm of this process uses; None: there will be none any more."""
        self._master = master
        self.over = master is None
        if master is not None:
            self._configure(master)

    def configure(self, configure: "Callable[[Master], None]") -> None:
        """Call `configure` with the master, now or when it is set."""
        self._configure = configure
        if self._master is not None:
            configure(self._master)

    @property
    def current(self) -> OpenedFarm | None:
        """The farm that tasks use; None if none is open."""
        entered = self._entered.farms
        while entered:
            if not entered[-1].closed:
                return entered[-1]
            entered.pop()
        opened = self._opened
        return opened[-1] if opened else self.default

    def prepare_to_open(self) -> None:
        """Make sure that what is left open is closed when the interpreter exits.

        Raises
        ------
        UsageError
            The interpreter is shutting down, or the caller is a thread that a task on a worker has started.
        """
        if not here().is_job:
            refuse_thread_of_task()
        with self.lock:
            if self._closes_in != os.getpid() and not self.over:
                try:
                    # As the standard library does: before other threads are waited for.
                    threading._register_atexit(self._close_at_exit)  # type: ignore[attr-defined]
                    self._closes_in = os.getpid()
                except RuntimeError:
                    self.over = True
        if self.over:
            raise UsageError("cannot schedule new futures after interpreter shutdown")

    def add(self, farm: OpenedFarm, can_be_current: bool) -> None:
        """Note that a farm was opened; tasks use it outside of ``with`` blocks if it `can_be_current`."""
        with self.lock:
            self._all.add(farm)
            if can_be_current:
                self._opened.append(farm)

    def enter(self, farm: OpenedFarm) -> None:
        """Note that this thread enters the ``with`` block of a farm."""
        self._entered.farms.append(farm)

    def remove(self, farm: OpenedFarm) -> None:
        """Note that a farm takes no more tasks."""
        with self.lock:
            if farm in self._opened:
                self._opened.remove(farm)
            if self.default is farm:
                self.default = None

    def forget(self, farm: OpenedFarm) -> None:
        """Note that all tasks of a farm have ended."""
        with self.lock:
            self._all.discard(farm)

    @property
    def any_open(self) -> OpenedFarm | None:
        """Some open farm, if there is one."""
        with self.lock:
            return next((farm for farm in self._all if not farm.closed), None)

    def close_all(self) -> None:
        """Finish and close the farms that the job has left open."""
        for farm in self._farms():
            farm.shutdown()

    def close_others(self, farm: OpenedFarm) -> None:
        """Close the farms that share the master of a farm, which is about to stop the workers."""
        for other in self._farms():
            if other.shares_master_with(farm):
                other.shutdown()

    def _farms(self) -> list[OpenedFarm]:
        with self.lock:
            return list(self._all)

    def _close_at_exit(self) -> None:
        """Close what is left when the interpreter exits: nobody waits for what has not started."""
        self.over = True
        if self._closes_in != os.getpid():
            return  # a fork, which has inherited farms that are not its own
        for farm in self._farms():
            farm.shutdown(cancel_futures=True)

    @property
    def current_master(self) -> "Master | None":
        """The master that farms use, if there is one yet."""
        return self._master

    @property
    def master(self) -> "Master":
        """The master that farms use; a serial one if none was set.

        Raises
        ------
        LaunchError
            Several processes were started, but not by ``python -m taskfarm run``.
        """
        if self._master is None:
            self.set_master(_serial_master())
        assert self._master is not None
        return self._master


registry = FarmRegistry()


REPORT_SECONDS = 2.0
"""Seconds that the other processes wait for the first to print: mpiexec ends all when one exits."""


def _report_once(error: LaunchError) -> None:
    """Let the first of several processes print an error that all of them raise, as one line."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], raised: BaseException, trace: "TracebackType | None") -> None:
        if raised is not error:
            usual(kind, raised, trace)
        elif claimed_rank(os.environ):
            time.sleep(REPORT_SECONDS)
        else:
            say(str(error))

    sys.excepthook = hook


def _serial_master() -> "Master":
    size = claimed_size(os.environ) or 1
    if size > 1:
        error = LaunchError(
            f"{size} processes were started, and each of them would run the whole job: start it with "
            f"`mpiexec -np {size} python -m taskfarm run job.py`, or use `Farm.from_comm(MPI.COMM_WORLD)` "
            "in a program that all ranks run"
        )
        _report_once(error)
        raise error
    from taskfarm.master.master import Master
    from taskfarm.worker.local import LocalTransport

    say(f"one rank, so tasks run one after the other in this process; `{registry.with_ranks}` starts 4")
    return Master(LocalTransport())
