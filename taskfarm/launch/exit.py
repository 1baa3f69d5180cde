"""How rank 0 ends: its exit code and its last lines."""

import os
import shlex
import sys

from taskfarm.console import say, write
from taskfarm.errors import JournalError
from taskfarm.launch.config import RunConfig
from taskfarm.launch.exit_codes import DRAINED, INTERRUPTED
from taskfarm.launch.signals import Drained
from taskfarm.master.master import Master
from taskfarm.master.workers import LostWorker
from taskfarm.protocol.failures import format_exception


def ending_fast(why: str | None) -> bool:
    """Whether Open MPI's mpiexec is ending all ranks: it sends SIGKILL a second after SIGTERM."""
    return why == "SIGTERM" and "OMPI_COMM_WORLD_RANK" in os.environ


def exit_code(raised: BaseException) -> int:
    """The code that Python itself would exit with, after printing why as Python does."""
    if isinstance(raised, Drained):
        return DRAINED
    if isinstance(raised, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(raised, JournalError):
        say(str(raised))
        return 1
    if not isinstance(raised, SystemExit):
        write(format_exception(raised), end="")
        return 1
    if raised.code is None:
        return 0
    if isinstance(raised.code, int):
        return raised.code & 0xFF
    write(raised.code)
    return 1


def drained_line(why: str, master: Master, total: int, config: RunConfig) -> str:
    """How much is done when the run ends early, and how to resume."""
    counts = master.scheduler.counts()
    line = f"{why}: {counts.done:,} of {total:,} tasks are done"
    if counts.failed:
        line += f", {counts.failed:,} failed"
    if counts.not_run:
        line += f", {counts.not_run:,} were not run because of that"
    if counts.assigned:
        line += f", {counts.assigned:,} {'was' if counts.assigned == 1 else 'were'} cut short"
    if config.journal is None and not config.joblog:
        kept = "--joblog" if config.argv[:1] == ["shell"] else "--journal"
        return f"{line}; no {kept} was kept, so the next run starts from the beginning"
    words = list(config.argv)
    if not config.resume:
        words.insert(1, "--resume")
    python = os.path.basename(sys.executable)
    command = [python, "-m", "taskfarm", words[0], "-n", str(master.transport.size), *words[1:]]
    return f"{line}; go on with: {shlex.join(command)}"


def losses_line(losses: list[LostWorker], workers: int) -> str:
    """Which workers were lost."""
    shown = ", ".join(map(str, losses[:5]))
    if len(losses) > 5:
        shown += f" and {len(losses) - 5} more"
    return f"lost {len(losses)} of {workers} workers: {shown}"
