"""The workers as the master sees them: who is connected, who is gone, and which functions each one has."""

import sys
from collections.abc import Callable, Collection, Iterable
from itertools import cycle
from typing import Any, NamedTuple

from taskfarm import __version__
from taskfarm.errors import LaunchError, TaskFarmError, WorkerLost
from taskfarm.master.farms import OpenFarm
from taskfarm.master.log_levels import LogLevels
from taskfarm.protocol import messages
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import (
    Blob,
    Define,
    DefineNames,
    Definitions,
    Expect,
    Forget,
    Hello,
    Initialize,
    Part,
    PassOn,
    SetPath,
    Stop,
    ToWorker,
    Work,
    new_tuple,
)
from taskfarm.protocol.serialize import nbytes
from taskfarm.transport.interface import Transport

TRANSFERS = range(1, 1 << 15)
"""The numbers of transfers between workers: as tags, which MPI limits; 0 is that of other messages."""


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
        self._definitions: dict[int, set[int]] = {}
        self._farms: dict[int, set[int]] = {}
        self._stale_farms: dict[int, list[int]] = {}
        self._paths: dict[int, list[str]] = {}
        self._heard: set[int] = set()
        self._numbers = cycle(TRANSFERS)
        self._stopping = False
        self._stopped: set[int] = set()
        self._log_levels = LogLevels()
        self._known_levels: dict[int, int] = {}
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
        """Send a message to a worker, unless it has been sent the poison pill.

        A worker reads nothing after that. The next transport might read what it left, as an MPI library
        uses the context of a communicator again.
        """
        if worker not in self._stopped:
            self._transport.send(worker, messages.encode(message))

    def pass_on(self, token: bytes, sender: int, worker: int, needs: tuple[Any, ...] = ()) -> None:
        """Let a worker send data to another one; `needs` is what the data needs there."""
        number = next(self._numbers)
        definitions = self.missing_definitions(worker, needs)
        self.send(worker, Expect(token, sender, number, ids_of(needs), definitions))
        self.send(sender, PassOn(token, worker, number))

    @property
    def error(self) -> TaskFarmError | None:
        """Why no farm can go on with these workers; None if one can."""
        if self._mismatch is None and not self.remaining:
            return WorkerLost(f"all workers are lost, the last {self.lost[-1]}; start the job again")
        return self._mismatch

    def register(self, worker: int, hello: Hello) -> bool:
        """Enter a worker that has started; False if its versions do not match the master's."""
        self._heard.add(worker)
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
        self._definitions[worker] = set()
        self._farms[worker] = set()
        self._paths[worker] = []
        return True

    def remove(self, worker: int) -> None:
        """Remove a worker that has stopped or is lost."""
        self.gone.add(worker)
        self.connected.discard(worker)

    def mark_lost(self, worker: int, why: str) -> None:
        """Remove a worker that is lost; if it is alive after all, it is told to end."""
        self._note_loss(worker, why)
        self._stop(worker, leave=True)
        self._transport.forget(worker)

    def mark_left(self, worker: int, why: str) -> None:
        """Remove a worker that stops by itself, and awaits the poison pill."""
        self._note_loss(worker, why)
        self._stop(worker, leave=False)

    def _note_loss(self, worker: int, why: str) -> None:
        hello = self.hellos.get(worker)
        self.lost.append(LostWorker(worker, hello.host if hello else "", why))
        self.remove(worker)

    def initialize(self, worker: int, farm: OpenFarm) -> None:
        """Prepare a worker for a farm."""
        self._farms[worker].add(farm.id)
        self._known_levels[worker] = 0
        levels = self.changed_levels(worker) or {}
        if farm.initializer is not None:
            self._send_definitions(worker, farm.initializer)
        self._paths[worker] = path = _path()
        stale = self._stale_farms.pop(worker, [])
        self.send(
            worker,
            Initialize(
                farm.id,
                path,
                farm.initializer,
                farm.isolates,
                levels,
                farm.seed,
                farm.folder,
                stale,
            ),
        )

    def changed_levels(self, worker: int) -> dict[str, int] | None:
        """The levels of the job's loggers if this worker does not know them; then it is about to."""
        self._log_levels.update()
        if self._known_levels.get(worker) == self._log_levels.version:
            return None
        self._known_levels[worker] = self._log_levels.version
        return self._log_levels.levels

    def send_work(
        self,
        worker: int,
        function: RegisteredFunction,
        farm: OpenFarm,
        parts: list[Part],
        helps: int = -1,
        order: Callable[[list[Part], dict[str, int] | None], ToWorker] | None = None,
    ) -> int:
        """Send a worker a batch of calls of a function, after what it does not have of what they need.

        If `helps` is the id of a task, the calls are for the time in which that one waits. `order` makes
        another message than `Work` from the calls and the levels of loggers.

        Returns the size of the latter in bytes.
        """
        nbytes = 0
        if self._paths[worker] != sys.path and self._paths[worker] != (path := _path()):
            self._paths[worker] = path
            self.send(worker, SetPath(path))
        if function.id not in self._functions[worker]:
            nbytes = self.define(worker, function, farm)
        for part in parts:
            if isinstance(part.calls, list):
                for blob in part.calls:
                    if blob.needs:
                        nbytes += self._send_definitions(worker, blob)
        levels = self.changed_levels(worker)
        self.send(
            worker, new_tuple(Work, (parts, levels, helps)) if order is None else order(parts, levels)
        )
        return nbytes

    def define(self, worker: int, function: RegisteredFunction, farm: OpenFarm) -> int:
        """Send a worker a function, unless it has it; returns its size in bytes, or 0."""
        if function.id in self._functions[worker]:
            return 0
        if farm.id not in self._farms[worker]:
            self.initialize(worker, farm)
        self._functions[worker].add(function.id)
        nbytes = function.nbytes + self._send_definitions(worker, function.blob)
        name, blob, limits = function.name, function.blob, function.limits
        # With one rank, results are kept where they are needed.
        keep = function.policy.keep and not self._transport.inline
        self.send(worker, Define(function.id, name, blob, limits, function.fresh, farm.id, keep))
        return nbytes

    def define_again(self, function: RegisteredFunction) -> None:
        """Send each worker a function, which has changed, before its next calls."""
        for functions in self._functions.values():
            functions.discard(function.id)

    def forget_farm(self, farm: int) -> None:
        """Let each worker drop a farm when it is prepared for the next one."""
        for worker, farms in self._farms.items():
            if farm in farms:
                farms.discard(farm)
                self._stale_farms.setdefault(worker, []).append(farm)

    def _send_definitions(self, worker: int, blob: Blob) -> int:
        """Send a worker the definitions that a blob needs, unless it has them; returns their size."""
        missing = self.missing_definitions(worker, blob.needs)
        if missing:
            self.send(worker, DefineNames(missing))
        return sum(nbytes(blob) for _, _, blob in missing)

    def missing_definitions(self, worker: int, needs: tuple[Any, ...]) -> Definitions:
        """Those of some definitions that a worker does not have; it is about to get them."""
        has = self._definitions[worker]
        missing = [definition for definition in needs if definition.id not in has]
        has.update(definition.id for definition in missing)
        return [(one.id, one.names, one.blob) for one in missing]

    def forget(self, functions: list[int], definitions: Collection[int]) -> None:
        """Let each worker drop these functions, and all definitions but those of `definitions`."""
        for worker in self.connected:
            stale_functions = self._functions[worker].intersection(functions)
            stale_definitions = self._definitions[worker].difference(definitions)
            if stale_functions or stale_definitions:
                self._functions[worker] -= stale_functions
                self._definitions[worker] -= stale_definitions
                self.send(worker, Forget([*stale_functions], [*stale_definitions]))

    def send_stop(self) -> None:
        """Send the poison pill to all workers that are not gone: to those that start late, when they do."""
        self._stopping = True
        self.stop_late()

    def stop_late(self) -> None:
        """Send the poison pill to a worker that has started after all the others got it."""
        if self._stopping:
            for worker in self._heard - self.gone - self._stopped:
                self._stop(worker, self._transport.damaged)

    def _stop(self, worker: int, leave: bool) -> None:
        self.send(worker, Stop(leave))
        self._stopped.add(worker)


def _path() -> list[str]:
    """Where this process looks for modules."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def ids_of(definitions: Iterable[Any]) -> tuple[int, ...]:
    """How workers know some definitions."""
    return tuple(definition.id for definition in definitions)
