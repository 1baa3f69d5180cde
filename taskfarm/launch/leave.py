"""How a rank leaves: after all others have come to their ends, or without MPI if ranks are lost."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from taskfarm.console import flush, write_to
from taskfarm.fork_hooks import exit_forked_child, in_forked_children
from taskfarm.launch.exit_codes import INTERRUPTED
from taskfarm.transport.interface import Transport
from taskfarm.worker.left_behind import EndWatchdog, end_holders_of_output, other_threads

FORWARD_SECONDS = 0.1
"""Seconds that the launcher gets to pass on what was printed: in an abort it may drop the rest."""

FLUSH_SECONDS = 1.0
"""Seconds within which the standard streams must have taken what was printed, before an abort."""


class LeaveAtExit:
    """Ends this process at exit; it runs after the job's own exit functions and those of tasks.

    MPI is finalized here, and not by mpi4py, because a rank that tasks keep from ending must do it from
    another thread, and because ranks sleep here until the others have come.
    """

    def __init__(self) -> None:
        self._transport: Transport | None = None
        self._code = 0
        self._without_mpi = False
        self._watchdog: EndWatchdog | None = None
        self._once = threading.Lock()
        self._forked = False
        atexit.register(self)
        in_forked_children(self._enter_forked_child)

    def _enter_forked_child(self) -> None:
        self._forked = True
        self._watchdog = None

    def arm(self, transport: Transport, code: int, without_mpi: bool) -> None:
        """Make this process end with an exit code: together with all others, or without MPI."""
        self._transport, self._code, self._without_mpi = transport, code, without_mpi

    def watch(self, where: str) -> None:
        """For a worker: end this process soon, whatever keeps it from its exit."""
        self._watchdog = EndWatchdog(where, self)
        self._watchdog.start()

    def leave_forked_child(self, code: int) -> None:
        """Make this process, which the job has forked, end with an exit code and without MPI."""
        self._code = code

    def __call__(self) -> None:
        """End this process now, or let Python go on to end it."""
        if self._forked:
            exit_forked_child(self._code)
        transport = self._transport
        if transport is None or not self._once.acquire(blocking=False):
            return
        if self._watchdog is not None:
            self._watchdog.cancel()
        logging.shutdown()
        flush()
        if self._without_mpi:
            time.sleep(FORWARD_SECONDS)
            transport.leave(self._code)
        end_holders_of_output(f"rank {transport.rank}")
        transport.finalize()
        # Python now removes its handlers, and a signal would end a rank whose work is done.
        _ignore_signals()
        if other_threads() or threading.current_thread() is not threading.main_thread():
            flush()
            _exit_process(self._code)


def _ignore_signals() -> None:
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def _exit_process(code: int) -> NoReturn:
    """End this process without waiting for its threads.

    MPICH ends all ranks if one calls ``_exit`` after it has finalized MPI: it leaves the launcher in an
    exit function of C. The interpreter lock is held meanwhile, so no other thread runs.
    """
    import ctypes

    ctypes.PyDLL(None).exit(code)
    os._exit(code)


@contextlib.contextmanager
def ending_all(transport: Transport | None) -> Iterator[None]:
    """A context whose exceptions end every rank: MPI would wait for this one."""
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if transport is None or os.getpid() != pid:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        if not interrupted:
            write_to(sys.__stderr__, traceback.format_exc())
        abort(transport, INTERRUPTED if interrupted else 1)


def abort(transport: Transport | None, code: int) -> NoReturn:
    """End every rank at once."""
    # Another Ctrl-C would end this function, and leave the other ranks behind.
    _ignore_signals()
    # Another thread may be held up in a stream that nobody reads.
    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    time.sleep(FORWARD_SECONDS)
    if transport is not None:
        transport.abort(code)
    os._exit(code)
