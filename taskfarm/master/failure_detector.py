"""Asks the workers for heartbeats, and finds those that have been silent for too long."""

from collections.abc import Iterator

from taskfarm.master.workers import WorkerTable
from taskfarm.protocol.functions import FunctionTable
from taskfarm.protocol.messages import Ping
from taskfarm.schedule.heartbeats import BUSY_LIMIT, IDLE_LIMIT, Heartbeats
from taskfarm.schedule.scheduler import Scheduler


class FailureDetector:
    """Decides which workers to give up, from their heartbeats and from what they are running.

    Attributes
    ----------
    heartbeats : Heartbeats
        Since when each worker has been silent.
    """

    def __init__(
        self, workers: WorkerTable, scheduler: Scheduler, functions: FunctionTable, now: float
    ) -> None:
        self.heartbeats = Heartbeats(workers.ranks, now)
        self._workers = workers
        self._scheduler = scheduler
        self._functions = functions

    def await_initializer(self, worker: int, now: float) -> None:
        """Start the time within which a worker must have run an initializer, if that is what it does."""
        if self._scheduler.is_preparing(worker):
            self.heartbeats.await_ready(worker, now)

    def resume(self, worker: int) -> None:
        """Send a worker its own limit of silence, if there is one: a farm is open."""
        if self.heartbeats.lost_after is not None:
            self._workers.send(worker, Ping(self.heartbeats.lost_after))

    def pause(self) -> None:
        """Let the workers wait for the next farm, however long that takes."""
        if self.heartbeats.lost_after is not None:
            for worker in self._workers.connected:
                self._workers.send(worker, Ping(None))

    def find_silent(self, now: float) -> Iterator[tuple[int, str]]:
        """Ask all workers for a heartbeat; yields those that have been silent for too long, and why."""
        ask, silent = self.heartbeats.check(now, self._limit)
        for worker in ask:
            if worker in self._workers.connected:
                self._workers.send(worker, Ping(self.heartbeats.lost_after))
        for worker, seconds in silent.items():
            ready = self._scheduler.functions_of(worker) is not None
            yield worker, f"{'silent for' if ready else 'not ready after'} {seconds:.0f} s"

    def _limit(self, worker: int) -> float:
        """Seconds of silence after which a worker is given up."""
        functions = self._scheduler.functions_of(worker)
        if functions is None:
            return self.heartbeats.start_limit
        if self.heartbeats.lost_after is not None:
            return self.heartbeats.lost_after
        # A task in the worker itself may hold the interpreter, and then nothing can answer.
        return IDLE_LIMIT if functions <= self._functions.isolated else BUSY_LIMIT
