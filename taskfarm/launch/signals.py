"""Signals and the walltime, as exceptions of the job's main thread."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from taskfarm.job.current_farm import registry

LAST = 10.0
"""Seconds after the grace in which the run must have ended, or it is ended by force."""


class Drained(KeyboardInterrupt):
    """The time is up: no new task starts, and the run ends so that it can go on later.

    Parameters
    ----------
    why : str
        The name of the signal, or the walltime.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Signals:
    """What comes from outside to end a run early.

    An exception is never raised in the middle of a turn of the farm, which would lose a message.

    Parameters
    ----------
    grace : float
        Seconds that running tasks get.
    walltime : float or None
        Seconds after which the run must have ended, from now on.
    last : callable
        Ends everything at once; called if the run has not ended after the grace.

    Attributes
    ----------
    drained : str or None
        Why no new task starts, once that is so.
    total : int
        Tasks that there were then, those included that maps had still to draw.
    began : float
        When the run began, in seconds of the system's clock.
    tell : callable
        Prints how far the run is; SIGUSR2 asks for it.
    """

    def __init__(self, grace: float, walltime: float | None, last: Callable[[], NoReturn]) -> None:
        self.drained: str | None = None
        self.total = 0
        self.began = time.time()
        self.tell: Callable[[], None] = lambda: None
        self._grace = grace
        self._last = last
        self._walltime_over = False
        signal.signal(signal.SIGINT, self._interrupt)
        # A thread prints: this one may be in the middle of anything, and hold what printing needs.
        signal.signal(signal.SIGUSR2, lambda *_: threading.Thread(target=lambda: self.tell()).start())
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._drain)
        if walltime is not None:
            self._later(max(0.0, walltime - grace), self._end_walltime)

    @staticmethod
    def _later(seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()

    def _end_walltime(self) -> None:
        self._walltime_over = True
        # Only a signal wakes the main thread from a sleep.
        os.kill(os.getpid(), signal.SIGUSR1)

    def _interrupt(self, *_: object) -> None:
        self._raise(KeyboardInterrupt())

    def _drain(self, number: int, _: object) -> None:
        if self.drained is not None:
            # Slurm and its srun each send SIGTERM at the time limit: the second must not cut the end short.
            return
        self.drained = "the walltime" if self._walltime_over else signal.Signals(number).name
        if registry.current_master is not None:
            self.total = registry.current_master.scheduler.counts().total + registry.current_master.undrawn
        self._later(self._grace + LAST, self._last)
        self._raise(Drained(self.drained))

    def _raise(self, error: BaseException) -> None:
        master = registry.current_master
        if master is None:
            raise error
        master.interrupt(error)


def end_early(code: int) -> None:
    """For rank 0 while MPI starts: nothing is to be kept yet, so a warning ends the run with this code."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: os._exit(code))


def ignore() -> None:
    """For a worker: rank 0 decides what signals mean that reach all ranks.

    A handler that does nothing, unlike SIG_IGN, is not inherited by what a task starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)


def deafen(interrupts: bool) -> None:
    """For a rank whose work is done: signals end it no more; those of Ctrl-C only where `interrupts`.

    Python takes its handlers away before MPI is finalized, which may last until the other ranks do so.
    """
    numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    for number in [*numbers, signal.SIGINT] if interrupts else numbers:
        signal.signal(number, signal.SIG_IGN)
