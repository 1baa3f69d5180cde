"""``python -m taskfarm info``: the MPI library, the placement of the ranks, and any problems."""

import os
import socket
import sys
from typing import NamedTuple

from taskfarm import __version__
from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError
from taskfarm.launch import placement
from taskfarm.launch.mpiexec import find_mpiexec
from taskfarm.transport import mpi

MAX_RANKS = 64
"""Ranks that are listed, at most."""


class _Place(NamedTuple):
    """The placement of a rank: its host, number of cores, and devices."""

    host: str
    cores: int
    devices: str


def info() -> int:
    """Print the MPI library, the placement of the ranks, and any problems; returns the exit code."""
    claimed = claimed_size(os.environ)
    size = mpi.num_ranks()
    here = _Place(socket.gethostname(), placement.cores(), placement.seen_devices(os.environ))
    places = mpi.allgather(here)
    seconds = None
    if size > 2 and mpi.thread_level() == "MPI_THREAD_MULTIPLE":
        from taskfarm.transport.groups import creation_seconds

        seconds = creation_seconds()
    if claimed_rank(os.environ):
        return 0
    problems = []
    if size == 1 and (claimed or 1) > 1:
        problems.append(
            f"the launcher started {claimed} processes, but each is alone in its MPI: mpiexec and "
            "mpi4py belong to different MPIs; start with `python -m taskfarm run -n N`"
        )
    try:
        mpiexec = find_mpiexec(mpi.library())
    except LaunchError as error:
        mpiexec = "none"
        problems.append(str(error))
    if mpi.thread_level() in ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED"):
        problems.append(
            "MPI allows no calls from a second thread: the farm makes progress only while the job waits"
        )
    _print_mpi(mpiexec, seconds)
    _print_ranks(places)
    if size == 1 and not problems:
        print("note      one rank: tasks would run one after another in this process")
    print("trouble   " + ("; ".join(problems) if problems else "none"))
    return 2 if problems else 0


def _print_mpi(mpiexec: str, seconds: float | None) -> None:
    """Print what is known of the MPI; `seconds` is what a communicator of all workers costs."""
    print(f"taskfarm  {__version__} on Python {sys.version.split()[0]}")
    print(f"MPI       {mpi.library()[:70]}")
    print(f"threads   {mpi.thread_level()}")
    print(f"mpiexec   {mpiexec}")
    if mpi.thread_level() == "MPI_THREAD_MULTIPLE":
        cost = "" if seconds is None else f"; a communicator of all workers costs {1e6 * seconds:,.0f} us"
        print(f"gangs     tasks may run on several ranks (ranks=){cost}")
    else:
        print("gangs     no tasks on several ranks (ranks=): they need MPI_THREAD_MULTIPLE")
    consequence = (
        "the others continue"
        if mpi.survives_dead_ranks()
        else "all ranks end; a --journal keeps the results"
    )
    print(f"death     if a rank dies, {consequence}")


def _print_ranks(places: list[_Place]) -> None:
    hosts = [place.host for place in places]
    counts = {host: hosts.count(host) for host in dict.fromkeys(hosts)}
    print(f"ranks     {len(places)}: " + ", ".join(f"{count} on {host}" for host, count in counts.items()))
    for rank, (host, cores, devices) in enumerate(places[:MAX_RANKS]):
        print(f"rank {rank:<5}{host}, {cores} cores, devices: {devices}")
    if len(places) > MAX_RANKS:
        print(f"          and {len(places) - MAX_RANKS} more ranks")
