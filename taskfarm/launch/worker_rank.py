"""The role of every rank but 0: serves as a worker until the poison pill."""

import faulthandler
import os
import signal
import sys
import traceback

from taskfarm.console import flush
from taskfarm.launch import signals
from taskfarm.launch.config import RunConfig
from taskfarm.launch.leave import LeaveAtExit, abort
from taskfarm.launch.script import Script
from taskfarm.shadowing import WORKER_PACKAGES
from taskfarm.transport.interface import Transport
from taskfarm.worker.worker import Worker

OUTPUT_FOLDER = "taskfarm-output"
"""The folder of ``--output files``."""


def serve(transport: Transport, script: Script, config: RunConfig, leave: LeaveAtExit) -> int:
    """Serve as a worker; returns the exit code. An error outside of tasks ends all ranks."""
    signals.ignore_on_worker()
    script.prepare_path(WORKER_PACKAGES)
    # Even a task that holds the interpreter lock does not keep this from printing the stack.
    faulthandler.register(signal.SIGQUIT, 2)
    try:
        worker = Worker(transport)
        if config.output == "tag":
            worker.capture_output()
        elif config.output != "plain":
            _redirect(config.output, transport.rank)
        worker.serve()
        signals.ignore_at_exit(interrupts=True)
        if worker.leaves:
            leave.arm(transport, 0)
        transport.close()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        abort(transport, 1)
    return 0


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
