"""Rank 0 uses the standard streams of its launcher itself, where mpiexec would forward them.

Open MPI's mpiexec forwards what it reads from its standard input, but never its end. MPICH's gives up if a
rank does not read fast enough. Both end with an error if nobody reads their standard output. So `run -n`
hands the streams on: it duplicates them, and rank 0 inherits the duplicates from MPICH's mpiexec, or takes
them from the process of Open MPI's.
"""

import contextlib
import io
import os
import socket
import stat
import sys
from collections.abc import MutableMapping
from typing import NoReturn

from taskfarm.console import open_missing, say
from taskfarm.environment import STREAMS, process_stat, streams

FIRST_DUPLICATE = 200
"""Duplicates get descriptors from here on, out of the way of those that programs expect to be free."""


NONE = -1
"""In place of a descriptor: the stream is not for this run."""


def hand_on(environ: MutableMapping[str, str], mpich: bool) -> None:
    """Duplicate standard streams for rank 0, in the process that becomes mpiexec.

    Parameters
    ----------
    environ : mutable mapping
        The environment of mpiexec.
    mpich : bool
        Whether it is MPICH's. Ranks of Open MPI are in the background of their terminal, and must not read
        from it: its mpiexec does.
    """
    open_missing()
    numbers = [number for number in (0, 1, 2) if mpich or not os.isatty(number)]
    words = [f"{stream}={_duplicate(stream) if _is_ours(stream) else NONE}" for stream in numbers]
    with contextlib.suppress(OSError):
        started = process_stat(os.getpid())[1][19]
        environ[STREAMS] = " ".join([socket.gethostname(), str(os.getpid()), started, *words])
        if 0 in numbers:
            _replace(0, os.open(os.devnull, os.O_RDONLY))


def _is_ours(stream: int) -> bool:
    """Whether a process may use the stream: only those in the foreground may read from the terminal."""
    if stream or not os.isatty(stream):
        return True
    try:
        return os.tcgetpgrp(stream) == os.getpgrp()
    except OSError:  # the terminal does not control this process
        return True


def _duplicate(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, FIRST_DUPLICATE)


def _replace(stream: int, descriptor: int) -> None:
    os.dup2(descriptor, stream)
    os.close(descriptor)


def take(environ: MutableMapping[str, str]) -> None:
    """Let rank 0 use the streams that were handed on; does nothing if there are none."""
    given = environ.pop(STREAMS, None)
    if given is None:
        return
    host, pid, started, *_ = given.split()
    for number, descriptor in streams(given):
        found = _find(host, int(pid), started, descriptor, number)
        if found is not None:
            _replace(number, found)
        elif number == 0:
            sys.stdin = _OutOfReach(host)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.reconfigure(line_buffering=True)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _find(host: str, pid: int, started: str, descriptor: int, stream: int) -> int | None:
    """A descriptor of the stream in this process; None if mpiexec is on another host."""
    try:
        if host != socket.gethostname() or process_stat(pid)[1][19] != started:
            return None
        there = os.stat(f"/proc/{pid}/fd/{descriptor}")
        if _is_open(descriptor) and os.path.samestat(os.fstat(descriptor), there):
            return descriptor
        shared = share(pid, descriptor)
        if shared is not None or stream:
            return shared
        # A second description of the same file: nobody else reads from it.
        opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY)
        if stat.S_ISREG(there.st_mode):
            os.lseek(opened, _position(pid, descriptor), os.SEEK_SET)
    except OSError:
        return None
    return opened


def share(pid: int, descriptor: int) -> int | None:
    """A descriptor of this process for the open file of another one, with its position.

    Returns
    -------
    int or None
        None if the system does not allow it.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        process = os.pidfd_open(pid)
        try:
            found = ctypes.CDLL(None).syscall(_PIDFD_GETFD, process, descriptor, 0)
        finally:
            os.close(process)
        return found if found >= 0 else None
    return None


_PIDFD_GETFD = 438
"""Number of the system call, the same on all architectures but Alpha."""


def _position(pid: int, descriptor: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{descriptor}") as info:
        return int(info.readline().split()[1])


class _OutOfReach(io.TextIOBase):
    """Stands for a standard input on another host: an empty one would give wrong results in silence."""

    def __init__(self, host: str) -> None:
        self._host = host

    def _refuse(self, *_: object) -> NoReturn:
        raise OSError(
            f"rank 0 on {socket.gethostname()} cannot read the standard input of mpiexec, which runs on "
            f"{self._host}, perhaps in the background: let the job read a file instead"
        )

    read = readline = readlines = __next__ = fileno = _refuse

    def readable(self) -> bool:
        """Always true: the error comes from reading."""
        return True


def say_past_mpiexec(line: str) -> None:
    """Print a line on mpiexec's own standard error: from SIGTERM on it drops what its ranks print."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        # Opened anew, a file would be written where mpiexec writes next.
        shared = share(parent, 2)
        path_or_descriptor = f"/proc/{parent}/fd/2" if shared is None else shared
        with open(path_or_descriptor, "a" if shared is None else "w") as stderr:
            print(f"taskfarm: {line}", file=stderr)
        return
    say(line)
