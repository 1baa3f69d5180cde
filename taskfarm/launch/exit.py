"""How a run ends: the exit code, the last words, and leaving without MPI where MPI would wait."""

import atexit
import contextlib
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from taskfarm.errors import JournalError
from taskfarm.launch.config import Plan
from taskfarm.launch.signals import Drained
from taskfarm.master.workers import LostWorker
from taskfarm.protocol.failures import format_exception
from taskfarm.schedule.states import Counts
from taskfarm.transport.interface import Transport

WRONG_USE = 2
LOSSES = 3
DRAINED = 75
INTERRUPTED = 130

FORWARDED = 0.1
"""Seconds that the launcher gets to pass on what was printed: in an abort it may drop the rest."""


class Leaving:
    """Called last at exit, after the job's own functions: ends this process without finalizing MPI."""

    def __init__(self) -> None:
        self._way: Callable[[], None] | None = None
        atexit.register(self)

    def go(self, transport: Transport, code: int) -> None:
        """See that this process leaves so, with an exit code."""
        self._way = partial(transport.leave, code)

    def __call__(self) -> None:
        if self._way is not None:
            logging.shutdown()
            flush()
            time.sleep(FORWARDED)
            self._way()


def flush() -> None:
    """Flush what was printed, though its reader may have gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def abort(transport: Transport | None, code: int) -> NoReturn:
    """End every rank at once."""
    flush()
    time.sleep(FORWARDED)
    if transport is not None:
        transport.abort(code)
    os._exit(code)


def say(line: str) -> None:
    """Print a line on standard error, though the launcher may have closed it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"taskfarm: {line}", file=sys.stderr, flush=True)


def hurried(why: str | None) -> bool:
    """Whether Open MPI's mpiexec is ending all ranks: it follows SIGTERM with SIGKILL in a second."""
    return why == "SIGTERM" and "OMPI_COMM_WORLD_RANK" in os.environ


def say_hurried(line: str) -> None:
    """Print a line though this mpiexec drops what its ranks print from SIGTERM on: to its own stderr."""
    with contextlib.suppress(OSError), open(f"/proc/{os.getppid()}/fd/2", "a") as stderr:
        print(f"taskfarm: {line}", file=stderr)
        return
    say(line)


def exit_code(raised: BaseException) -> int:
    """The code that Python itself would exit with, after saying why as Python does."""
    if isinstance(raised, Drained):
        return DRAINED
    if isinstance(raised, KeyboardInterrupt):
        say("interrupted; all ranks end")
        return INTERRUPTED
    if isinstance(raised, JournalError):
        say(str(raised))
        return 1
    if not isinstance(raised, SystemExit):
        with contextlib.suppress(OSError, ValueError):
            print(format_exception(raised), end="", file=sys.stderr, flush=True)
        return 1
    if raised.code is None:
        return 0
    if isinstance(raised.code, int):
        return raised.code & 0xFF
    with contextlib.suppress(OSError, ValueError):
        print(raised.code, file=sys.stderr)
    return 1


def drained_line(why: str, counts: Counts, total: int, plan: Plan, ranks: int) -> str:
    """How much is done when the time is up, and how to go on."""
    line = f"{why}: {counts.done:,} of {total:,} tasks are done"
    if counts.failed:
        line += f", {counts.failed:,} failed"
    if counts.assigned:
        line += f", {counts.assigned:,} were cut short"
    if plan.journal is None:
        return f"{line}; no --journal was kept, so the next run begins anew"
    words = list(plan.words)
    if not plan.resume:
        words.insert(1, "--resume")
    start = [os.path.basename(sys.executable), "-m", "taskfarm", words[0], "-n", str(ranks), *words[1:]]
    return f"{line}; go on with: {shlex.join(start)}"


def losses_line(losses: list[LostWorker], workers: int) -> str:
    """Which workers were lost."""
    shown = ", ".join(map(str, losses[:5]))
    if len(losses) > 5:
        shown += f" and {len(losses) - 5} more"
    return f"lost {len(losses)} of {workers} workers: {shown}"
