"""Looks after the workers: asks for signs of life, and says who is to be given up."""

from collections.abc import Iterator

from taskfarm.master.workers import Crew
from taskfarm.protocol.functions import FunctionTable
from taskfarm.protocol.messages import Ping
from taskfarm.schedule.heartbeats import BUSY_LIMIT, IDLE_LIMIT, Heartbeats
from taskfarm.schedule.scheduler import Scheduler


class Watch:
    """Keeps the pulse of a crew.

    Attributes
    ----------
    pulse : Heartbeats
        Who has been silent since when.
    """

    def __init__(self, crew: Crew, scheduler: Scheduler, functions: FunctionTable, now: float) -> None:
        self.pulse = Heartbeats(crew.others, now)
        self._crew = crew
        self._scheduler = scheduler
        self._functions = functions

    def begin(self, worker: int, now: float) -> None:
        """Expect a sign of life of a worker from now on, and tell it for how long it may hear nothing."""
        self.pulse.await_ready(worker, now)
        self._crew.send(worker, Ping(self.pulse.lost_after))

    def pause(self) -> None:
        """Let the workers wait for the next farm, however long that takes."""
        if self.pulse.lost_after is not None:
            for worker in self._crew.present:
                self._crew.send(worker, Ping(None))

    def look(self, now: float) -> Iterator[tuple[int, str]]:
        """Ask all workers; gives those that have been silent for too long, and why."""
        ask, silent = self.pulse.check(now, self._patience)
        for worker in ask:
            if worker in self._crew.present:
                self._crew.send(worker, Ping(self.pulse.lost_after))
        for worker, seconds in silent.items():
            ready = self._scheduler.functions_of(worker) is not None
            yield worker, f"{'silent for' if ready else 'not ready after'} {seconds:.0f} s"

    def _patience(self, worker: int) -> float:
        """Seconds of silence after which a worker is given up."""
        functions = self._scheduler.functions_of(worker)
        if functions is None:
            return self.pulse.start_limit
        if self.pulse.lost_after is not None:
            return self.pulse.lost_after
        # A task in the worker itself may hold the interpreter, and nothing can answer then.
        return IDLE_LIMIT if functions <= self._functions.isolated else BUSY_LIMIT
