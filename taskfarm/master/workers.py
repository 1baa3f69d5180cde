"""The workers as the master sees them: who is there, who has gone, and what each has been told."""

import logging
import sys
from typing import NamedTuple

from taskfarm import __version__
from taskfarm.errors import LaunchError, TaskFarmError, WorkerLost
from taskfarm.protocol import messages
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Blob, Define, Hello, Initialize, Stop, ToWorker
from taskfarm.transport.interface import Transport


class Loss(NamedTuple):
    """A worker that was lost.

    Attributes
    ----------
    worker : int
        Its rank.
    host : str
        Where it ran; empty if it never said.
    why : str
        What tells that it is lost.
    """

    worker: int
    host: str
    why: str

    def __str__(self) -> str:
        place = f" on {self.host}" if self.host else ""
        return f"rank {self.worker}{place} ({self.why})"


class Crew:
    """Keeps the workers' books, and writes to them.

    Attributes
    ----------
    present : set of int
        Workers that have said hello and have not gone.
    gone : set of int
        Workers that have said goodbye or are lost.
    losses : list of Loss
        Those that are lost.
    hellos : dict of int to Hello
        What each worker said when it started.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.present: set[int] = set()
        self.gone: set[int] = set()
        self.losses: list[Loss] = []
        self.hellos: dict[int, Hello] = {}
        self._told: dict[int, set[int]] = {}
        self._stale: dict[int, list[int]] = {}
        self._misfit: LaunchError | None = None

    @property
    def others(self) -> set[int]:
        """Every rank but the master's."""
        return set(range(1, self._transport.size))

    @property
    def left(self) -> int:
        """Workers that have not gone, started or starting."""
        return self._transport.size - 1 - len(self.gone)

    def send(self, worker: int, message: ToWorker) -> None:
        """Send a message to a worker."""
        self._transport.send(worker, messages.encode(message))

    @property
    def trouble(self) -> TaskFarmError | None:
        """Why no farm can go on with these workers, if none can."""
        if self._misfit is None and not self.left:
            return WorkerLost(f"all workers are lost, the last {self.losses[-1]}; start the job again")
        return self._misfit

    def welcome(self, worker: int, hello: Hello) -> bool:
        """Take in a worker that has started; False if it does not fit to this master."""
        ours = ".".join(map(str, sys.version_info[:2]))
        if hello.version != __version__ or not hello.python.startswith(f"{ours}."):
            self._misfit = LaunchError(
                f"rank {worker} on {hello.host} runs taskfarm {hello.version} on Python {hello.python}, "
                f"rank 0 taskfarm {__version__} on Python {ours}: start all ranks from one environment"
            )
            return False
        self.present.add(worker)
        self.hellos[worker] = hello
        self._told[worker] = set()
        return True

    def dismiss(self, worker: int) -> None:
        """Write off a worker that has said goodbye or is lost."""
        self.gone.add(worker)
        self.present.discard(worker)

    def lose(self, worker: int, why: str) -> None:
        """Write off a worker that is lost: if it is there after all, it is to end."""
        hello = self.hellos.get(worker)
        self.losses.append(Loss(worker, hello.host if hello else "", why))
        self.send(worker, Stop(leave=True))
        self._transport.forget(worker)
        self.dismiss(worker)

    def prepare(self, worker: int, farm: int, initializer: Blob | None, isolate: bool, seed: int) -> None:
        """Make a worker ready for a farm."""
        level = logging.getLogger().level
        self.send(worker, Initialize(farm, sys.path, initializer, isolate, level, seed))

    def define(self, worker: int, function: RegisteredFunction) -> None:
        """Send a worker a function, unless it has it."""
        if function.id not in self._told[worker]:
            self._told[worker].add(function.id)
            stale = self._stale.pop(worker, [])
            self.send(worker, Define(function.id, function.name, function.blob, stale, function.limits))

    def forget(self, function: int) -> None:
        """Let the workers drop a function, with the next one that they are sent."""
        for worker, told in self._told.items():
            if function in told:
                told.discard(function)
                self._stale.setdefault(worker, []).append(function)

    def stop(self) -> None:
        """Send the poison pill to all that have not gone."""
        for worker in self.others - self.gone:
            self.send(worker, Stop(self._transport.damaged))
