"""CPU time of this process, and the time for which its main thread waited for a core."""

import os
import time

SCHEDSTAT = "/proc/self/schedstat"
"""Linux: nanoseconds on a core, nanoseconds of waiting for one, and the number of time slices."""

SHORT = 2e-3
"""Seconds; for shorter parts the wait for a core is not read, which takes as long as a short call."""


class CpuMeter:
    """Measures the parts of a batch: `start`, run the calls, `stop`."""

    def __init__(self) -> None:
        self._cpu = self._children = self._waited = 0.0

    def start(self) -> None:
        """Begin a part."""
        self._cpu = time.process_time()

    def skip(self, seconds: float) -> None:
        """Do not count CPU time that other tasks have used meanwhile."""
        self._cpu += seconds
        self._children, self._waited = children_time(), core_wait()

    def stop(self, seconds: float) -> tuple[float, float]:
        """End a part that took `seconds`.

        Returns
        -------
        cpu : float
            CPU time of all threads of this process, and of programs that have ended in a part that was not
            short, in seconds.
        core_wait : float
            Seconds for which the main thread could have run, but had no core; 0 if the system does not
            say, or for a short part.
        """
        cpu = time.process_time() - self._cpu
        if seconds < SHORT:
            return cpu, 0.0
        # What passed between two parts counts, too: it cannot be more than the calls had to wait.
        children, self._children = self._children, children_time()
        cpu += self._children - children
        waited, self._waited = self._waited, core_wait()
        return cpu, max(0.0, min(self._waited - waited, seconds - cpu))


def children_time() -> float:
    """CPU time of the processes that this one has started and waited for so far, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def core_wait() -> float:
    """Seconds for which the main thread has waited for a core so far; 0 if the system does not say."""
    try:
        with open(SCHEDSTAT, "rb", buffering=0) as file:
            return int(file.read(100).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0
