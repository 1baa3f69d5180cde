"""The terminal of the user: a launcher that stands between gives its ranks pipes."""

import os
import sys
from typing import NamedTuple

from taskfarm.environment import process_stat

LAUNCHERS = ("mpiexec", "mpirun", "hydra_", "prte", "orte", "pmi_proxy", "srun", "slurmstepd")
"""How the names of processes begin that pass on what their ranks print."""


class Terminal(NamedTuple):
    """A terminal on which standard error is shown.

    Attributes
    ----------
    path : str
        Its device.
    out : bool
        Whether standard output is shown there, too.
    """

    path: str
    out: bool

    def open(self) -> int:
        """A descriptor to write to it."""
        return os.open(self.path, os.O_WRONLY | os.O_NOCTTY)


def find() -> Terminal | None:
    """The terminal on which the launcher, or this process if there is none, shows standard error."""
    pid = os.getpid()
    if not sys.stderr.isatty():
        pid = os.getppid()
        try:
            while _is_launcher(pid) and _shown(pid, 2).startswith("pipe:"):
                pid = _parent(pid)
            if not _is_launcher(pid):
                return None
        except OSError:
            return None
    try:
        path = _shown(pid, 2)
        terminal = Terminal(path, _shown(pid, 1) == path)
        descriptor = terminal.open()
        try:
            return terminal if os.isatty(descriptor) else None
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _shown(pid: int, descriptor: int) -> str:
    """What a descriptor of a process leads to."""
    if pid == os.getpid():
        # Also where there is no /proc.
        return os.ttyname(descriptor) if os.isatty(descriptor) else ""
    return os.readlink(f"/proc/{pid}/fd/{descriptor}")


def _is_launcher(pid: int) -> bool:
    return pid > 1 and process_stat(pid)[0].startswith(LAUNCHERS)


def _parent(pid: int) -> int:
    return int(process_stat(pid)[1][1])
