"""Signals and the walltime, as exceptions of the job's main thread."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from taskfarm import interrupts
from taskfarm.launch.standard_streams import say_past_mpiexec

if TYPE_CHECKING:
    from taskfarm.master.master import Master

FORCE_AFTER = 10.0
"""Seconds after the grace; a run that has not ended by then is ended by force."""


class Drained(KeyboardInterrupt):
    """The time is up: no new task starts, and the run ends so that it can be resumed.

    Parameters
    ----------
    why : str
        The name of the signal, or the walltime.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Signals:
    """Handles what comes from outside to end a run early.

    An exception is never raised in the middle of the farm's own code (`taskfarm.interrupts`).

    Parameters
    ----------
    grace : float
        Seconds that running tasks get.
    walltime : float or None
        Seconds after which the run must have ended, from now on.
    end_now : callable
        Ends everything at once; called if the run has not ended after the grace.
    current_master : callable
        Returns the master of the run, if there is one yet.

    Attributes
    ----------
    drained : str or None
        Why no new task starts; None while tasks may start.
    interrupted : bool
        Whether Ctrl-C has ended the job.
    total : int
        The number of tasks at that moment, including those that maps had still to draw.
    print_status : callable
        Prints how far the run is, on SIGUSR2.
    """

    def __init__(
        self,
        grace: float,
        walltime: float | None,
        end_now: Callable[[], NoReturn],
        current_master: "Callable[[], Master | None]",
    ) -> None:
        self.drained: str | None = None
        self.interrupted = False
        self.total = 0
        self.print_status: Callable[[], None] = lambda: None
        self._grace = grace
        self._end_now = end_now
        self._current_master = current_master
        self._walltime_over = False
        signal.signal(signal.SIGINT, interrupts.on_sigint)
        signal.signal(signal.SIGUSR2, self._print_status)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._drain)
        if walltime is not None:
            self._later(max(0.0, walltime - grace), self._end_walltime)

    def _print_status(self, *_: object) -> None:
        # A thread prints: this one may be in the middle of anything, and hold what printing needs.
        threading.Thread(target=self.print_status).start()

    @staticmethod
    def _later(seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()

    def _end_walltime(self) -> None:
        self._walltime_over = True
        # Only a signal wakes the main thread from a sleep.
        os.kill(os.getpid(), signal.SIGUSR1)

    def note_interrupt(self) -> None:
        """Note that Ctrl-C has ended the job."""
        self.interrupted = True
        self._count()

    def _drain(self, number: int, frame: FrameType | None) -> None:
        if self.drained is not None:
            # Slurm and its srun each send SIGTERM at the time limit; the second must not end the grace.
            return
        self.drained = "the walltime" if self._walltime_over else signal.Signals(number).name
        self._count()
        self._later(self._grace + FORCE_AFTER, self._end_now)
        interrupts.interrupt(Drained(self.drained), frame)

    def _count(self) -> None:
        if (master := self._current_master()) is not None:
            self.total = master.scheduler.counts().total + master.undrawn


def end_early(code: int) -> None:
    """For rank 0 while MPI starts: there is nothing to keep yet, so a signal ends the run with `code`."""

    def end(number: int, _: object) -> None:
        # Open MPI's mpiexec sends SIGTERM after Ctrl-C, too.
        say_past_mpiexec(f"{signal.Signals(number).name}: ended before the job started")
        os._exit(code)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, end)


def ignore_on_worker() -> None:
    """For a worker: signals have no effect, because rank 0 decides what a signal to all ranks means.

    A handler that does nothing, unlike SIG_IGN, is not inherited by the processes that a task starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)


def ignore_at_exit(interrupts: bool) -> None:
    """For a rank whose work is done: signals no longer end it, nor does Ctrl-C if `interrupts` is true.

    Python removes its handlers before MPI is finalized, and that may last until the other ranks finalize.
    """
    numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    for number in [*numbers, signal.SIGINT] if interrupts else numbers:
        signal.signal(number, signal.SIG_IGN)
