"""Which ranks a program of another library has: one that runs the program, or all of them."""

import os
from typing import TYPE_CHECKING

from taskfarm.environment import claimed_size
from taskfarm.job.current_farm import registry

if TYPE_CHECKING:
    from mpi4py import MPI

    from taskfarm.master.master import Master


def launched_master() -> "Master | None":
    """The master of the launch, if there are other ranks that serve it."""
    master = registry.current_master
    return None if master is None or master.transport.inline else master


def runs_alone(comm: "MPI.Intracomm | None") -> bool:
    """Whether this process alone runs the program."""
    several = (claimed_size(os.environ) or 1) > 1 or (comm is not None and comm.Get_size() > 1)
    return launched_master() is not None or not several


def or_all_ranks(comm: "MPI.Intracomm | None") -> "MPI.Intracomm | None":
    """All ranks where none are given; None where only this one runs the program."""
    if comm is not None or runs_alone(comm):
        return comm
    from taskfarm.transport.mpi import world

    return world()
