"""The farm of this process: the only module-level state of taskfarm.

Tasks are decorated on workers, too, so this file loads neither the farm nor the master.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from taskfarm.console import say
from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError

if TYPE_CHECKING:
    from types import TracebackType

    from taskfarm.job.spmd import Block
    from taskfarm.master.master import Master


class Closable(Protocol):
    """A farm, as far as it is closed here."""

    def shutdown(self) -> None:
        """Finish all tasks, and close the farm."""


class FarmRegistry:
    """Holds the farms and the master of this process.

    A ContextVar would hide the farm from the threads of the job, which start with an empty context.

    Attributes
    ----------
    farm : Farm or None
        The farm that is open.
    default : Farm or None
        The farm that tasks use if none is open.
    blocks : dict of Master to Block
        The blocks that a program which all ranks run has not left; see `taskfarm.job.spmd`.
    ending : bool
        Whether the job has ended, so that only callbacks may submit tasks.
    ended : bool
        Whether nothing may submit tasks any more.
    """

    def __init__(self) -> None:
        self._master: Master | None = None
        self._configure: Callable[[Master], None] = lambda master: None
        self.farm: Closable | None = None
        self.default: Closable | None = None
        self.blocks: dict[Master, Block] = {}
        self.ending = self.ended = False

    def set_master(self, master: "Master | None") -> None:
        """Make `master` the one that every farm of this process uses."""
        self._master = master
        if master is not None:
            self._configure(master)

    def configure(self, configure: "Callable[[Master], None]") -> None:
        """Call `configure` with the master, now or when it is set."""
        self._configure = configure
        if self._master is not None:
            configure(self._master)

    def close_default(self) -> None:
        """Finish the tasks of the default farm, and close it."""
        if self.default is not None:
            self.default.shutdown()

    def close_all(self) -> None:
        """Finish and close the farms that the job has left open."""
        self.close_default()
        if self.farm is not None:
            self.farm.shutdown()

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

    say(
        "one rank, so tasks run one after the other in this process; "
        "`python -m taskfarm run -n 4 job.py` starts 4"
    )
    return Master(LocalTransport())
