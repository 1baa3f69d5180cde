"""Signals and the walltime, as exceptions of the job's main thread."""

import contextlib
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from taskfarm import interrupts
from taskfarm.console import say
from taskfarm.environment import end_later, mpiexec_process
from taskfarm.fork_hooks import handle, in_forked_children
from taskfarm.launch.exit_codes import DRAINED, INTERRUPTED

if TYPE_CHECKING:
    from taskfarm.master.master import Master

FORCE_AFTER = 10.0
"""Seconds after the grace; a run that has not ended by then is ended by force."""


REACT_SECONDS = 0.5
"""Seconds after which the main thread counts as being held up in a call of C."""


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


class SignalWatcher(threading.Thread):
    """Tells of signals when they arrive, while the main thread may be inside a call of C.

    Parameters
    ----------
    arrived : callable
        Called with the number of each signal that has a handler in Python.
    """

    def __init__(self, arrived: Callable[[int], object]) -> None:
        super().__init__(name="taskfarm signals", daemon=True)
        self._arrived = arrived
        self._numbers, self._written = socket.socketpair()
        self._written.setblocking(False)
        signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        in_forked_children(self._close)

    def _close(self) -> None:
        # The guard must not mistake a forked process for this one.
        self._numbers.close()
        self._written.close()

    def start_guard(self, limit: float, walltime: float) -> None:
        """Start the process that ends this one if a signal, or the walltime, remains without effect.

        Parameters
        ----------
        limit : float
            Seconds that this process gets after a signal.
        walltime : float
            Seconds from now after which it must have ended.
        """
        import subprocess

        from taskfarm.launch import guard

        numbers = self._numbers.fileno()
        words = [numbers, os.getpid(), mpiexec_process(), limit, walltime]
        with contextlib.suppress(OSError):
            subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *map(str, words)],
                pass_fds=[numbers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self) -> None:
        """Wait for signals."""
        readable = select.poll()
        readable.register(self._numbers, select.POLLIN)
        while True:
            # What `recv` takes, the guard no longer sees, though this thread may wait for the interpreter.
            readable.poll()
            for number in self._numbers.recv(64):
                self._arrived(number)


class Signals:
    """Handles what comes from outside to end a run early.

    An exception is never raised in the middle of the farm's own code (`taskfarm.interrupts`). If the main
    thread is inside a call of C, and no exception can be raised there, other threads end the run.

    Parameters
    ----------
    grace : float
        Seconds that running tasks get.
    walltime : float or None
        Seconds after which the run must have ended, from now on.
    end_now : callable
        Ends everything at once, with an exit code; called if the run has not ended after the grace.
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
    told : bool
        Whether the line that says how much is done has been printed.
    print_status : callable
        Prints how far the run is, on SIGUSR2.
    ending_fast : callable
        Whether the launcher is about to end all ranks, if the run ends for this reason.
    walltime_ends : float or None
        When the walltime is up, in seconds of `time.monotonic`.
    walltime_is_up : bool
        Whether that is why the run ends.
    is_another_run : bool
        Whether an earlier run has left a journal.
    is_endless : bool
        Whether another run with the same walltime would get no further.
    """

    def __init__(
        self,
        grace: float,
        walltime: float | None,
        end_now: Callable[[int], NoReturn],
        current_master: "Callable[[], Master | None]",
    ) -> None:
        self.drained: str | None = None
        self.interrupted = False
        self.total = 0
        self.print_status: Callable[[], None] = lambda: None
        self.ending_fast: Callable[[str], bool] = lambda why: False
        self._grace = grace
        self._end_now = end_now
        self._current_master = current_master
        self._why_over = ""
        self.walltime_is_up = self.is_another_run = self.is_endless = False
        self._noting = threading.Lock()
        self._raised = self._job_ended = self.told = False
        self._interrupts = self._retries = 0
        self._checking = False
        self._asking_until: float | None = None
        handle(signal.SIGINT, interrupts.on_sigint)
        interrupts.observe(self._interrupt_seen)
        handle(signal.SIGUSR2, self._handle_sigusr2)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            handle(number, self._drain)
        watcher = SignalWatcher(self._arrived)
        watcher.start()
        watcher.start_guard(grace + 2 * FORCE_AFTER, (walltime or math.inf) + 2 * FORCE_AFTER)
        self.walltime_ends = None if walltime is None else time.monotonic() + walltime
        if walltime is not None:
            self._later(max(0.0, walltime - grace), self._end_walltime)

    def job_ended(self) -> None:
        """From now on nothing is raised: a signal ends the run, though the job's own threads go on."""
        self._job_ended = True

    def _handle_sigusr2(self, *_: object) -> None:
        if self._asking_until is not None:
            # The other thread asks whether this one handles signals.
            self._asking_until = None
            return
        # A thread prints: this one may be in the middle of anything, and hold what printing needs.
        threading.Thread(target=self.print_status).start()

    @staticmethod
    def _later(seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.name = "taskfarm timer"
        timer.start()

    def _end_walltime(self) -> None:
        self.walltime_is_up = self.drained is None
        self.end_early("the walltime")

    def end_early(self, why: str) -> None:
        """Begin to end the run, for this reason."""
        self._why_over = self._why_over or why
        # Only a signal wakes the main thread from a sleep.
        os.kill(os.getpid(), signal.SIGUSR1)

    # In the thread that watches

    def _arrived(self, number: int) -> None:
        """Note a signal, whether or not the main thread can handle it."""
        if number in (signal.SIGTERM, signal.SIGUSR1):
            self._note(number)
        elif number == signal.SIGINT:
            self._interrupts += 1
            pressed = self._interrupts - (interrupts.num_retries() - self._retries)
            if pressed > 1 and not self._checking:
                # Pressed again, because nothing has happened.
                self._checking = True
                self._later(REACT_SECONDS, self._end_held_up)

    def _end_held_up(self) -> None:
        """End the run if the main thread is inside a call of C."""
        # It may have handled signals before their arrival was noted, so it is asked.
        if self._interrupts and not self._main_thread_reacts():
            say("interrupted; all ranks end")
            self._end_now(INTERRUPTED)
        self._interrupt_handled()
        self._checking = False

    def _main_thread_reacts(self) -> bool:
        main = threading.main_thread().ident
        if main is None or signal.getsignal(signal.SIGUSR2) != self._handle_sigusr2:
            return False
        self._asking_until = time.monotonic() + REACT_SECONDS
        while self._asking_until is not None and time.monotonic() < self._asking_until:
            signal.pthread_kill(main, signal.SIGUSR2)
            time.sleep(REACT_SECONDS / 10)
        return self._asking_until is None

    def _interrupt_handled(self) -> None:
        self._interrupts, self._retries = 0, interrupts.num_retries()

    def _note(self, number: int) -> None:
        """Begin to end the run; once."""
        with self._noting:
            if self.drained is not None:
                # Slurm and its srun each send SIGTERM at the time limit; the second must not end the grace.
                return
            self.drained = self._why_over or signal.Signals(number).name
        # The job's own threads get the grace, too; it cannot react any more once it has ended.
        self._later(self._grace + (0.0 if self._job_ended else FORCE_AFTER), self._force)
        # The job may go into code of C that holds the interpreter.
        end_later(os.getpid(), self._grace + 2 * FORCE_AFTER)
        self._later(REACT_SECONDS, self._go_without_main_thread)

    def _go_without_main_thread(self) -> None:
        """Let the tasks end and then the run, if the main thread has not begun to."""
        if self._raised or self.drained is None:
            return
        if self.ending_fast(self.drained):
            self._force()
        ending = time.monotonic() + self._grace
        if (master := self._current_master()) is not None:
            self._count(master)
            master.drain()
            while master.scheduler.assigned and not self._raised and time.monotonic() < ending:
                time.sleep(0.1)
        self._later(FORCE_AFTER, lambda: None if self._raised else self._force())

    def _force(self) -> NoReturn:
        self._end_now(DRAINED)

    # In the main thread

    def _interrupt_seen(self) -> None:
        self._interrupt_handled()
        if self._job_ended:
            say("interrupted; all ranks end")
            self._end_now(INTERRUPTED)

    def note_interrupt(self) -> None:
        """Note that Ctrl-C has ended the job."""
        self.interrupted = True
        if (master := self._current_master()) is not None:
            self._count(master)

    def _drain(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        if self._raised or self._job_ended:
            return
        self._raised = True
        if (master := self._current_master()) is not None:
            self._count(master)
        assert self.drained is not None
        interrupts.interrupt(Drained(self.drained), frame)

    def _count(self, master: "Master") -> None:
        self.total = self.total or master.scheduler.counts().total + master.undrawn


def end_early(code: int) -> None:
    """For rank 0 while MPI starts: there is nothing to keep yet, so a signal ends the run with `code`."""
    # Workers do not need it.
    from taskfarm.launch.standard_streams import say_past_mpiexec

    def end(number: int, _: object) -> None:
        # Open MPI's mpiexec sends SIGTERM after Ctrl-C, too.
        say_past_mpiexec(f"{signal.Signals(number).name}: ended before the job started")
        os._exit(code)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        handle(number, end)


def ignore_on_worker() -> None:
    """For a worker: signals have no effect, because rank 0 decides what a signal to all ranks means.

    A handler that does nothing, unlike SIG_IGN, is not inherited by the processes that a task starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        handle(number, _ignore)


def _ignore(*_: object) -> None:
    """Do nothing."""
