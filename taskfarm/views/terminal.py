"""Finds the user's terminal: the ranks themselves see only the pipes of their launcher."""

import os
import sys
from typing import Any, NamedTuple

from taskfarm.environment import process_stat

LAUNCHERS = ("mpiexec", "mpirun", "hydra_", "prte", "orte", "pmi_proxy", "srun", "slurmstepd")
"""Prefixes of the names of processes that forward the output of their ranks."""


class Terminal(NamedTuple):
    """A terminal that shows standard error.

    Attributes
    ----------
    path : str
        Path of its device.
    out : bool
        Whether it shows standard output, too.
    """

    path: str
    out: bool

    def open(self) -> int:
        """Open the terminal for writing, and return the file descriptor."""
        return os.open(self.path, os.O_WRONLY | os.O_NOCTTY)


def find() -> Terminal | None:
    """Return the terminal that shows standard error, which may be the launcher's; None if there is none."""
    pid = os.getpid()
    if not _is_terminal(sys.stderr):
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


def _is_terminal(stream: Any) -> bool:
    """Whether a stream, which the job may have closed or replaced, is a terminal."""
    try:
        return bool(stream.isatty())
    except Exception:
        return False


def _shown(pid: int, descriptor: int) -> str:
    """Return the device or pipe behind a file descriptor of a process."""
    if pid == os.getpid():
        # This works without /proc, too.
        return os.ttyname(descriptor) if os.isatty(descriptor) else ""
    return os.readlink(f"/proc/{pid}/fd/{descriptor}")


def _is_launcher(pid: int) -> bool:
    return pid > 1 and process_stat(pid)[0].startswith(LAUNCHERS)


def _parent(pid: int) -> int:
    return int(process_stat(pid)[1][1])
