"""The environment of a run, for the report."""

import contextlib
import importlib.metadata
import platform
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import TypeAlias

from taskfarm import __version__
from taskfarm.master.master import Master
from taskfarm.protocol.describe import shown_folder

GIT = 5.0
"""Seconds within which git must report the commit."""

Facts: TypeAlias = dict[str, str | list[str]]


def about(master: Master, argv: Sequence[str], began: float) -> Facts:
    """Return the command, time, place, commit, MPI and versions of a run, by label.

    Parameters
    ----------
    master : Master
        The master of the run.
    argv : sequence of str
        The command line, from ``run`` on.
    began : float
        When the run began, in seconds of the system's clock.
    """
    found: Facts = {
        "command": f"python -m taskfarm {shlex.join(argv)}",
        "started": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(began)),
        "folder": f"{shown_folder()} on {socket.gethostname()}",
        "commit": _commit(),
        "lost": [str(loss) for loss in master.workers.lost],
        "MPI": _library(master),
        "versions": [f"taskfarm {__version__}", f"Python {platform.python_version()}", *_versions()],
        "system": platform.platform(),
    }
    return {name: value for name, value in found.items() if value}


def _library(master: Master) -> str:
    if master.transport.size == 1:
        return "none: one process ran the tasks"
    from taskfarm.transport import mpi

    return mpi.library()[:70].strip()


def _versions() -> list[str]:
    found = []
    for name in ("mpi4py", "numpy", "cloudpickle", "tqdm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return found


def _commit() -> str:
    """Return the commit of the working directory, marked if it has changes; empty if there is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
