"""Finds out whether one rank or all ranks run a program that was written for another library."""

import os
from typing import TYPE_CHECKING

from taskfarm.environment import claimed_size
from taskfarm.job.current_farm import registry

if TYPE_CHECKING:
    from mpi4py import MPI

    from taskfarm.master.master import Master


def launched_master() -> "Master | None":
    """The master of ``taskfarm run``, if other ranks serve it as workers."""
    master = registry.current_master
    return None if master is None or master.transport.inline else master


def runs_alone(comm: "MPI.Intracomm | None") -> bool:
    """Whether only this process runs the program."""
    several = (claimed_size(os.environ) or 1) > 1 or (comm is not None and comm.Get_size() > 1)
    return launched_master() is not None or not several


def resolve_comm(comm: "MPI.Intracomm | None") -> "MPI.Intracomm | None":
    """Return `comm` if it is not None; else all ranks, or None if only this process runs the program."""
    if comm is not None or runs_alone(comm):
        return comm
    from taskfarm.transport.mpi import world

    return world()
