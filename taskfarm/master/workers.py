"""The workers as the master sees them: who is connected, who is gone, and which functions each one has."""

import logging
import sys
from typing import NamedTuple

from taskfarm import __version__
from taskfarm.errors import LaunchError, TaskFarmError, WorkerLost
from taskfarm.master.farms import OpenFarm
from taskfarm.protocol import messages
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Define, Hello, Initialize, Stop, ToWorker
from taskfarm.transport.interface import Transport


class LostWorker(NamedTuple):
    """A worker that was lost.

    Attributes
    ----------
    worker : int
        Its rank.
    host : str
        Its host; empty if it never started.
    why : str
        How the loss was noticed.
    """

    worker: int
    host: str
    why: str

    def __str__(self) -> str:
        place = f" on {self.host}" if self.host else ""
        return f"rank {self.worker}{place} ({self.why})"


class WorkerTable:
    """Tracks the workers, and sends messages to them.

    Attributes
    ----------
    connected : set of int
        Workers that have started and are not gone.
    gone : set of int
        Workers that have stopped or are lost.
    lost : list of LostWorker
        Workers that are lost.
    hellos : dict of int to Hello
        The first message of each worker.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.connected: set[int] = set()
        self.gone: set[int] = set()
        self.lost: list[LostWorker] = []
        self.hellos: dict[int, Hello] = {}
        self._functions: dict[int, set[int]] = {}
        self._stale: dict[int, list[int]] = {}
        self._farms: dict[int, set[int]] = {}
        self._stale_farms: dict[int, list[int]] = {}
        self._mismatch: LaunchError | None = None

    @property
    def ranks(self) -> set[int]:
        """Every rank but the master's."""
        return set(range(1, self._transport.size))

    @property
    def remaining(self) -> int:
        """Workers that are not gone, started or starting."""
        return self._transport.size - 1 - len(self.gone)

    def send(self, worker: int, message: ToWorker) -> None:
        """Send a message to a worker."""
        self._transport.send(worker, messages.encode(message))

    @property
    def error(self) -> TaskFarmError | None:
        """Why no farm can go on with these workers; None if one can."""
        if self._mismatch is None and not self.remaining:
            return WorkerLost(f"all workers are lost, the last {self.lost[-1]}; start the job again")
        return self._mismatch

    def register(self, worker: int, hello: Hello) -> bool:
        """Enter a worker that has started; False if its versions do not match the master's."""
        ours = ".".join(map(str, sys.version_info[:2]))
        if hello.version != __version__ or not hello.python.startswith(f"{ours}."):
            self._mismatch = LaunchError(
                f"rank {worker} on {hello.host} runs taskfarm {hello.version} on Python {hello.python}, "
                f"rank 0 taskfarm {__version__} on Python {ours}: start all ranks from one environment"
            )
            return False
        self.connected.add(worker)
        self.hellos[worker] = hello
        self._functions[worker] = set()
        self._farms[worker] = set()
        return True

    def remove(self, worker: int) -> None:
        """Remove a worker that has stopped or is lost."""
        self.gone.add(worker)
        self.connected.discard(worker)

    def mark_lost(self, worker: int, why: str) -> None:
        """Remove a worker that is lost; if it is alive after all, it is told to end."""
        hello = self.hellos.get(worker)
        self.lost.append(LostWorker(worker, hello.host if hello else "", why))
        self.send(worker, Stop(leave=True))
        self._transport.forget(worker)
        self.remove(worker)

    def initialize(self, worker: int, farm: OpenFarm) -> None:
        """Prepare a worker for a farm."""
        self._farms[worker].add(farm.id)
        level = logging.getLogger().level
        stale = self._stale_farms.pop(worker, [])
        self.send(
            worker,
            Initialize(
                *(farm.id, sys.path, farm.initializer, farm.isolates, level, farm.seed),
                *(farm.max_tasks, stale),
            ),
        )

    def send_function(self, worker: int, function: RegisteredFunction, farm: OpenFarm) -> None:
        """Send a worker a function of a farm, unless it has it; first of all what the farm needs."""
        if function.id not in self._functions[worker]:
            if farm.id not in self._farms[worker]:
                self.initialize(worker, farm)
            self._functions[worker].add(function.id)
            stale = self._stale.pop(worker, [])
            name, blob, limits = function.name, function.blob, function.limits
            self.send(worker, Define(function.id, name, blob, stale, limits, farm.id))

    def forget_farm(self, farm: int) -> None:
        """Let each worker drop a farm when it is prepared for the next one."""
        for worker, farms in self._farms.items():
            if farm in farms:
                farms.discard(farm)
                self._stale_farms.setdefault(worker, []).append(farm)

    def forget_function(self, function: int) -> None:
        """Let each worker drop a function when it is sent the next one."""
        for worker, functions in self._functions.items():
            if function in functions:
                functions.discard(function)
                self._stale.setdefault(worker, []).append(function)

    def send_stop(self) -> None:
        """Send the poison pill to all workers that are not gone."""
        for worker in self.ranks - self.gone:
            self.send(worker, Stop(self._transport.damaged))
