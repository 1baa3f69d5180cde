"""A run in virtual time that tells a summary what a master would tell it."""

from collections.abc import Sequence
from typing import Any

from taskfarm.master.farm_time import FarmTime
from taskfarm.master.recorders import FinishedCalls
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Blob
from taskfarm.schedule.policy import Policy
from taskfarm.views.summary import RunState, Summary
from tests.views.recorded import span

LATENCY = 1e-4
"""Seconds of a message."""


class VirtualRun:
    """The workers run tasks first come, first served, while the job does what it is told to.

    Parameters
    ----------
    workers, cores : int
        Number of workers, and of the cores that they share.
    start, initializer : float
        Seconds until a worker is connected, and seconds that its initializer takes.
    """

    def __init__(
        self, workers: int = 4, *, cores: int = 4, start: float = 0.2, initializer: float = 0.0
    ) -> None:
        self.now = start
        self.farm_time = FarmTime(lambda: self.now, 0.0)
        self.summary = Summary(0.0, workers, self.farm_time, attached=start)
        self._free = [start + initializer] * workers
        self._cores = cores
        self._tasks = self._maps = self._submits = 0
        self._running: list[tuple[int, str, int, float]] = []
        for worker in range(1, workers + 1):
            self.summary.worker_joined(start, worker, "here")
            if initializer:
                self.summary.worker_initialized(start + initializer, worker, initializer)

    def job(self, seconds: float) -> None:
        """Let the job's own code run."""
        self.now += seconds

    def map(self, seconds: Sequence[float], *, submits: bool = False, **how: Any) -> None:
        """Run tasks of these durations, and wait for them; for the options, see `_run`."""
        if submits:
            self._submits += len(seconds)
        else:
            self._maps += 1
        self._run(seconds, **how)

    def _run(
        self,
        seconds: Sequence[float],
        *,
        draw: float = 0.0,
        pickle: float = 0.0,
        consume: float = 0.0,
        buffersize: int = 10**9,
        cpu: float = 1.0,
        core_wait: float = 0.0,
        nbytes: int = 80,
        transfer: float = LATENCY,
        master: float = 0.0,
        carries: int = 0,
        fails: bool = False,
        first: float = 0.0,
        hangs: bool = False,
    ) -> None:
        """Run tasks.

        Parameters
        ----------
        seconds : sequence of float
            The durations of the tasks.
        draw, pickle, consume : float
            Seconds in which rank 0 makes an argument, pickles it, and uses a result.
        buffersize : int
            Tasks that are drawn ahead of what is consumed.
        cpu, core_wait : float
            Shares of a task's time.
        nbytes, transfer, master : int, float, float
            Size of arguments and results, seconds of a message, and seconds of rank 0 for each task.
        carries : int
            Size of the function's pickle.
        fails : bool
            Whether every task fails once, and is retried.
        first : float
            Seconds by which the first call on each worker takes longer.
        hangs : bool
            Whether the last task does not end.
        """
        function = RegisteredFunction(1, "work", Blob(b"x" * carries, []), (b"", Policy(), b""))
        consumed = [self.now] * len(seconds)
        ready = self.now
        served = self.now
        finished: list[FinishedCalls] = []
        seen: set[int] = set()
        for index, duration in enumerate(seconds):
            if index >= buffersize:
                ready = max(ready, consumed[index - buffersize])
            if draw:
                self.now = max(self.now, ready)
                with self.farm_time.drawing():
                    self.now += draw
            if pickle:
                with self.farm_time.working():
                    self.now += pickle
            ready = max(ready, self.now)
            worker = min(range(len(self._free)), key=self._free.__getitem__)
            served = max(ready, self._free[worker], served) + master
            began = served + transfer
            if worker not in seen:
                seen.add(worker)
                duration += first
            self.summary.batch_sent(served, worker + 1, [span()], len(self._free))
            if hangs and index == len(seconds) - 1:
                self._running = [(worker + 1, "work", self._tasks, began)]
                break
            for attempt in range(1 + fails):
                failed = fails and attempt == 0
                ended = began + duration
                calls = FinishedCalls(
                    worker=worker + 1, function=function, first=self._tasks, count=1, attempt=attempt + 1,
                    batch=index, failures={0: ValueError()} if failed else {}, retried=[0] * failed,
                    queued=ready, sent=served, started=began, seconds=duration, received=ended + transfer,
                    nbytes=nbytes, cpu=cpu * duration, core_wait=core_wait * duration,
                )  # fmt: skip
                finished.append(calls)
                began = ended + transfer
            self._free[worker] = ended + transfer
            self._tasks += 1
            consumed[index] = max(consumed[index - 1] if index else 0.0, ended + transfer)
            if consume:
                self._wait(consumed[index])
                self.now = max(self.now, consumed[index]) + consume
                consumed[index] = self.now
        self._wait(max(self._free))
        for calls in sorted(finished, key=lambda calls: calls.received):
            self.summary.calls_finished(calls)

    def _wait(self, until: float) -> None:
        """Let the job wait in the farm."""
        if until > self.now:
            self.farm_time.enter("waiting")
            self.now = until
            self.farm_time.leave()

    def wait(self, seconds: float) -> None:
        """Let the job wait in the farm for a task that does not end."""
        self._wait(self.now + seconds)

    def figures(self) -> dict[str, Any]:
        """The figures of the summary now."""
        state = RunState(self._running, self._maps, self._submits, self._cores)
        return self.summary.figures(self.now, state)
