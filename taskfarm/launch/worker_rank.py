"""The role of every rank but 0: serves as a worker until the poison pill."""

import os
import sys
import time
from typing import NoReturn

from taskfarm.console import flush
from taskfarm.environment import start_programs_here
from taskfarm.errors import UsageError
from taskfarm.fork_hooks import dump_stacks_on_sigquit
from taskfarm.launch import signals
from taskfarm.launch.config import OUTPUT_FOLDER, RunConfig
from taskfarm.launch.leave import LeaveAtExit
from taskfarm.launch.script import Script
from taskfarm.shadowing import WORKER_PACKAGES
from taskfarm.transport.interface import Transport
from taskfarm.worker.context import RUN
from taskfarm.worker.worker import Worker


def serve(transport: Transport, script: Script, config: RunConfig, leave: LeaveAtExit) -> int:
    """Serve as a worker; returns the exit code."""
    signals.ignore_on_worker()
    if config.walltime is not None:
        RUN.ends = time.monotonic() + config.walltime
    start_programs_here(os.environ)
    script.prepare_path(WORKER_PACKAGES)
    dump_stacks_on_sigquit(2)
    sys.breakpointhook = _refuse_breakpoint
    _end_input()
    worker = Worker(transport)
    worker.guard_signals()
    if config.output == "tag":
        worker.capture_output()
    elif config.output != "plain":
        _redirect(config.output, transport.rank)
    worker.serve()
    if not worker.leaves:
        transport.close()
    leave.arm(transport, 0, without_mpi=worker.leaves)
    leave.watch(f"rank {transport.rank}")
    return 0


def _refuse_breakpoint(*_: object, **__: object) -> NoReturn:
    raise UsageError(
        "breakpoint() in a task has no terminal here: run the job in one process with `python job.py`, or "
        "call the function itself"
    )


def _end_input() -> None:
    """Let the standard input be empty: that of MPICH never ends, and programs would wait for it."""
    with open(os.devnull) as file:
        os.dup2(file.fileno(), 0)


def _redirect(output: str, rank: int) -> None:
    """Send everything that this process and its children print to a file, or nowhere."""
    path = os.devnull
    if output == "files":
        os.makedirs(OUTPUT_FOLDER, exist_ok=True)
        path = os.path.join(OUTPUT_FOLDER, f"rank{rank}.txt")
    flush()
    with open(path, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
