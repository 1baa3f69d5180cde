"""Tasks for measurements, in an importable module, so that no executor pays for pickling code."""

import os
import socket
import time
from typing import Any, NamedTuple


class WorkerInfo(NamedTuple):
    """Identity and CPU time of a worker.

    Attributes
    ----------
    host, pid : str, int
        Host and process id of the worker.
    cpu, clock : float
        Seconds of CPU time so far, and the worker's clock at the same moment, in seconds.
    cores : frozenset of int
        Cores on which the worker may run.
    """

    host: str
    pid: int
    cpu: float
    clock: float
    cores: frozenset[int]


def same(value: Any) -> Any:
    """Return the argument: an empty task."""
    return value


def touch(array: Any) -> Any:
    """Add one to the first element in place, and return the array."""
    array[0] += 1
    return array


def burn(seconds: float) -> float:
    """Use CPU time for a number of seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def spin(iterations: int) -> int:
    """Run an empty loop: unlike `burn`, it is exact to microseconds once an iteration has been timed."""
    for _ in range(iterations):
        pass
    return iterations


def spin_time(iterations: int) -> float:
    """Return the CPU seconds of one iteration of `spin`."""
    started = time.thread_time()
    spin(iterations)
    return (time.thread_time() - started) / iterations


def group_seconds(count: int) -> float:
    """Seconds that the ranks of this task take to make a communicator, the mean of `count`."""
    # What else measures these tasks needs no MPI.
    from taskfarm import comm

    ours = comm()
    group = ours.Get_group()
    ours.Barrier()
    started = time.perf_counter()
    made = [ours.Create_group(group) for _ in range(count)]
    seconds = (time.perf_counter() - started) / count
    for each in made:
        each.Free()
    group.Free()
    return seconds


def worker_info(seconds: float) -> WorkerInfo:
    """Sleep, then return the identity and CPU time of the worker that ran this."""
    time.sleep(seconds)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return WorkerInfo(
        host=socket.gethostname(),
        pid=os.getpid(),
        cpu=time.process_time(),
        clock=time.perf_counter(),
        cores=frozenset(cores),
    )
