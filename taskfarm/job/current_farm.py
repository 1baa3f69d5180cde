"""The farm of this process: the only module-level state of taskfarm."""

import os
import sys
from collections.abc import Callable
from typing import Protocol

from taskfarm.environment import claimed_size
from taskfarm.errors import LaunchError, UsageError
from taskfarm.master.master import Master
from taskfarm.worker.context import IN_TASK
from taskfarm.worker.local import LocalTransport


class Closing(Protocol):
    """A farm, as it is closed."""

    def shutdown(self) -> None:
        """Finish what it has, and close it."""


class Home:
    """What there is one of in a process.

    A ContextVar would hide the farm from the threads of the job, which start with an empty context.

    Attributes
    ----------
    farm : Farm or None
        The farm that is open.
    default : Farm or None
        The farm that tasks use when none is open.
    """

    def __init__(self) -> None:
        self._master: Master | None = None
        self._set_up: Callable[[Master], None] = lambda master: None
        self.farm: Closing | None = None
        self.default: Closing | None = None

    def install(self, master: Master | None) -> None:
        """Make `master` what every farm of this process works on; for the launch."""
        self._master = master
        if master is not None:
            self._set_up(master)

    def prepare(self, set_up: Callable[[Master], None]) -> None:
        """Call `set_up` with the master that is installed, or will be."""
        self._set_up = set_up
        if self._master is not None:
            set_up(self._master)

    def close_default(self) -> None:
        """Finish what the default farm has, and close it."""
        if self.default is not None:
            self.default.shutdown()

    def close_all(self) -> None:
        """Finish and close the farms that the job has left open."""
        self.close_default()
        if self.farm is not None:
            self.farm.shutdown()

    @property
    def installed(self) -> Master | None:
        """The master that farms work on, if there is one yet."""
        return self._master

    @property
    def master(self) -> Master:
        """The installed master; without one, a serial one.

        Raises
        ------
        LaunchError
            Several processes were started, but not by ``python -m taskfarm run``.
        """
        if self._master is None:
            self.install(_serial_master())
        assert self._master is not None
        return self._master


home = Home()


def refuse_in_task() -> None:
    """Raise UsageError if the caller is a task."""
    if IN_TASK.get() is not None:
        raise UsageError(
            "a task cannot submit tasks: call the function directly, or submit from the job itself"
        )


def _serial_master() -> Master:
    size = claimed_size(os.environ) or 1
    if size > 1:
        raise LaunchError(
            f"{size} processes were started, and each of them would run the whole job: start it with "
            "`mpiexec -np N python -m taskfarm run job.py`, or use `Farm.from_comm(MPI.COMM_WORLD)` "
            "in a program that all ranks run"
        )
    print(
        "taskfarm: one rank, so tasks run one after the other in this process; "
        "`python -m taskfarm run -n 4 job.py` starts 4",
        file=sys.stderr,
    )
    return Master(LocalTransport())
