"""Lets the workers that are left after a loss agree on who they are, so that they can form groups again."""

from taskfarm.master.workers import WorkerTable
from taskfarm.protocol.messages import Regroup, Regrouped
from taskfarm.schedule.gangs import Gangs
from taskfarm.transport.interface import Transport

QUIET_SECONDS = 0.5
"""Seconds after a loss before the workers agree: MPI copes badly with another loss meanwhile."""

LONGEST = 120.0
"""Seconds in which all workers must have agreed: none while its task holds the interpreter."""


class Regrouping:
    """Renews the communicator from which groups of workers make theirs, when a worker has died.

    All workers that are left take part, each in a thread of its own. So tasks go on, and only tasks on
    several ranks wait. Nothing happens unless there have been such tasks.

    Parameters
    ----------
    transport : Transport
        The way to the workers.
    gangs : Gangs
        The tasks on several ranks, which start or do not.
    workers : WorkerTable
        The workers.
    """

    def __init__(self, transport: Transport, gangs: Gangs, workers: WorkerTable) -> None:
        self._transport = transport
        self._gangs = gangs
        self._workers = workers
        self._number = 0
        self._missing: set[int] = set()
        self._due = False
        self._left = -1
        self._since = 0.0

    def lose(self, worker: int, alive: bool, now: float) -> None:
        """Note that a worker is gone; `alive` if it has stopped by itself."""
        gangs = self._gangs
        if gangs.broken or not self._transport.gangs:
            return
        if alive:
            self._left = worker
        if self._transport.has_unreachable:
            self._break(f"MPI makes no communicators after rank {worker} was given up")
        elif self._left in self._missing or (self._left >= 0 and not alive):
            self._break(f"MPI makes no communicators after rank {self._left} has left")
        elif not alive:
            self._due, self._since = True, now
            self._missing.discard(worker)
            gangs.paused = f"the ranks agree on who is left after rank {worker} was lost"

    def check(self, now: float) -> bool:
        """Ask the workers to agree if that is due; True if they have not in time, and never will."""
        waited = now - self._since
        if not self._gangs.paused or waited < (QUIET_SECONDS if self._due else LONGEST):
            return False
        if not self._due:
            late = ", ".join(map(str, sorted(self._missing)))
            ranks = "rank" if len(self._missing) == 1 else "ranks"
            self._break(
                f"after a loss, {ranks} {late} did not take part in new groups within {LONGEST:g} s"
            )
            return True
        self._due, self._since = False, now
        self._number += 1
        self._missing = self._workers.ranks - self._workers.gone
        for worker in self._missing:
            self._workers.send(worker, Regroup(self._number))
        return False

    def handle(self, worker: int, answer: Regrouped) -> bool:
        """Let tasks on several ranks start when all workers have agreed; True if none ever will again."""
        if answer.number != self._number or self._due:
            # Another one has died meanwhile.
            return False
        if answer.why:
            self._break(f"MPI makes no communicators after a rank was lost ({answer.why})")
            return True
        self._missing.discard(worker)
        if not self._missing:
            self._gangs.paused = ""
        return False

    def _break(self, why: str) -> None:
        self._gangs.broken, self._gangs.paused = why, ""
        self._missing = set()
