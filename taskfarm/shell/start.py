"""Starts command lines as processes of their own, outside of MPI."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from taskfarm.environment import current_folder, inheritable_descriptors, leave_launcher
from taskfarm.shell import guard
from taskfarm.shell.direct import DirectStart, ask_bash
from taskfarm.worker.group_guard import lifeline

POLL_SECONDS = 0.05
"""Seconds between two looks whether a process has ended, at most."""

_RESTORED = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]
"""Signals that Python ignores, and that programs expect not to be ignored."""


class Process:
    """A child process that leads a process group.

    Parameters
    ----------
    pid : int
        Its id.

    Attributes
    ----------
    pid : int
        As given.
    returncode : int or None
        Its exit code, or minus the number of the signal that ended it; None until `poll` has seen its end.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Look whether it has ended; returns `returncode`."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float | None) -> bool:
        """Wait for its end, at most so many seconds; whether it has ended."""
        ending = None if seconds is None else time.monotonic() + seconds
        pause = 5e-4
        while self.poll() is None:
            left = POLL_SECONDS if ending is None else ending - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, POLL_SECONDS)
        return True


class Starter:
    """Starts commands with the environment that this process has now.

    Attributes
    ----------
    shell : str
        The shell that runs commands: the same on all hosts, whatever the user's own is.
    """

    def __init__(self) -> None:
        self._made_from = _surroundings()
        self._environ = dict(os.environ)
        leave_launcher(self._environ)
        self.shell = os.environ.get("PARALLEL_SHELL") or shutil.which("bash") or "/bin/sh"
        self._not_inherited = [(os.POSIX_SPAWN_CLOSE, each) for each in inheritable_descriptors()]
        self._started = 0
        self._direct: DirectStart | None = None

    def is_current(self) -> bool:
        """Whether a new one would do the same."""
        return self._made_from == _surroundings()

    def start(self, text: str, out: int, err: int, variables: Mapping[str, str]) -> Process:
        """Start a command without input, as the leader of a process group.

        Parameters
        ----------
        text : str
            The command line.
        out, err : int
            Descriptors for what it prints.
        variables : mapping of str to str
            Variables that only this command has.
        """
        _guard.ensure()
        self._started += 1
        if self._started == 2:
            # To ask costs as much as it saves a command.
            self._direct = ask_bash(self.shell, self._environ)
        variables = {**variables, guard.TOKEN: _guard.token}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
            *self._not_inherited,
        ]
        if self._direct is not None and (found := self._direct.words(text)) is not None:
            file, words = found
            # What bash finds wrong with a program, it shall say itself.
            with contextlib.suppress(OSError):
                return self._spawn(file, words, {**self._direct.environ, "_": file, **variables}, actions)
        return self._spawn(self.shell, [self.shell, "-c", text], {**self._environ, **variables}, actions)

    def _spawn(self, file: str, words: list[str], environ: Mapping[str, str], actions: Any) -> Process:
        return Process(
            os.posix_spawn(file, words, environ, file_actions=actions, setpgroup=0, setsigdef=_RESTORED)
        )


class _Guard:
    """The process that ends commands when this one is gone."""

    def __init__(self) -> None:
        self.token = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ensure(self) -> None:
        """Start it, again if somebody has ended it, or if this process was forked."""
        if self._owner == os.getpid() and self._process is not None and self._process.poll() is None:
            return
        if self._owner != os.getpid():
            self._owner, self.token = os.getpid(), os.urandom(8).hex()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, self.token],
            stdin=lifeline(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


_guard = _Guard()
_current: Starter | None = None


def current() -> Starter:
    """What starts the commands of this process."""
    global _current
    if _current is None:
        _current = Starter()
    return _current


def follow_environment() -> None:
    """Let the commands from now on have the environment, and the folder, that this process has now."""
    global _current
    if _current is not None and not _current.is_current():
        _current = None


def unnamed_file() -> int:
    """A descriptor of a new file without a name, above those of the standard streams."""
    return _above_streams(_unnamed_file())


def _unnamed_file() -> int:
    folder, flags = tempfile.gettempdir(), os.O_RDWR | os.O_CLOEXEC
    if unnamed := getattr(os, "O_TMPFILE", 0):
        with contextlib.suppress(OSError):  # not every file system has it
            return os.open(folder, flags | unnamed, 0o600)
    descriptor, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)
    return descriptor


def named_file(path: str) -> int:
    """A descriptor of a new file, above those of the standard streams.

    Who still writes to an earlier file of that name keeps that one.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return _above_streams(os.open(path, flags, 0o666))


def _above_streams(descriptor: int) -> int:
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _surroundings() -> tuple[dict[Any, Any], str, int]:
    # The variables as `os.environ` has them: to decode them all would cost a command more than its search.
    return dict(getattr(os.environ, "_data", os.environ)), current_folder(), os.getpid()
