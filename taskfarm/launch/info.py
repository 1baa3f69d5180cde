"""``python -m taskfarm info``: which MPI there is, where the ranks are, and what is wrong."""

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
"""Ranks that are listed."""


class _Place(NamedTuple):
    """Where a rank is: its host, its number of cores, and its devices."""

    host: str
    cores: int
    devices: str


def info() -> int:
    """Print which MPI there is, how many ranks on which hosts, and what is wrong; returns the exit code."""
    claimed, size = claimed_size(os.environ), mpi.num_ranks()
    here = _Place(socket.gethostname(), placement.cores(), placement.seen_devices(os.environ))
    places = mpi.allgather(here)
    if claimed_rank(os.environ):
        return 0
    trouble = []
    if size == 1 and (claimed or 1) > 1:
        trouble.append(
            f"the launcher started {claimed} processes, but each is alone in its MPI: mpiexec and "
            "mpi4py belong to different MPIs; start with `python -m taskfarm run -n N`"
        )
    try:
        mpiexec = find_mpiexec(mpi.library())
    except LaunchError as error:
        mpiexec = "none"
        trouble.append(str(error))
    if mpi.thread_level() in ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED"):
        trouble.append(
            "MPI allows no calls from a second thread: the farm makes progress only while the job waits"
        )
    _print_mpi(mpiexec)
    _print_ranks(places)
    if size == 1 and not trouble:
        print("note      one rank: tasks would run one after the other in this process")
    print("trouble   " + ("; ".join(trouble) if trouble else "none"))
    return 2 if trouble else 0


def _print_mpi(mpiexec: str) -> None:
    print(f"taskfarm  {__version__} on Python {sys.version.split()[0]}")
    print(f"MPI       {mpi.library()[:70]}")
    print(f"threads   {mpi.thread_level()}")
    print(f"mpiexec   {mpiexec}")
    survives = "the others go on" if mpi.survives() else "all ranks end; a --journal keeps what is done"
    print(f"death     if a rank dies, {survives}")


def _print_ranks(places: list[_Place]) -> None:
    hosts = [place.host for place in places]
    counts = {host: hosts.count(host) for host in dict.fromkeys(hosts)}
    print(f"ranks     {len(places)}: " + ", ".join(f"{n} on {host}" for host, n in counts.items()))
    for rank, (host, cores, devices) in enumerate(places[:MAX_RANKS]):
        print(f"rank {rank:<5}{host}, {cores} cores, devices: {devices}")
    if len(places) > MAX_RANKS:
        print(f"          and {len(places) - MAX_RANKS} more ranks")
