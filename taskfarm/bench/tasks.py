"""Tasks to measure with: every process can import them, so that no executor pays for pickling code."""

import os
import socket
import time
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """What a worker says of itself.

    Attributes
    ----------
    host, pid : str, int
        Who it is.
    cpu, clock : float
        Seconds of CPU time that it has used, and its clock at that moment.
    cores : frozenset of int
        Cores that it may run on.
    """

    host: str
    pid: int
    cpu: float
    clock: float
    cores: frozenset[int]


def same(value: Any) -> Any:
    """Return the argument: a task that does nothing."""
    return value


def touch(array: Any) -> Any:
    """Add one to the first element, in place."""
    array[0] += 1
    return array


def burn(seconds: float) -> float:
    """Use so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def spin(turns: int) -> int:
    """Go round an empty loop: unlike `burn`, exact for microseconds, once the loop is timed."""
    for _ in range(turns):
        pass
    return turns


def spin_time(turns: int) -> float:
    """CPU seconds of one turn of `spin`."""
    started = time.thread_time()
    spin(turns)
    return (time.thread_time() - started) / turns


def who(seconds: float) -> Seen:
    """Sleep, then say who ran this."""
    time.sleep(seconds)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Seen(
        socket.gethostname(), os.getpid(), time.process_time(), time.perf_counter(), frozenset(cores)
    )
