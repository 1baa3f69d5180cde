"""The current folder of tasks: that of the job when the farm opened, whatever other tasks do."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from taskfarm.console import say
from taskfarm.environment import current_folder

_OS: Any = os
_POSIX: Any = sys.modules.get("posix")
"""Where ``from posix import chdir`` finds it."""

Change: TypeAlias = Callable[[Any], None]


class TaskFolder:
    """Keeps tasks in one folder; a context manager around each batch.

    Asking for the current folder after each task would cost a microsecond. So ``os.chdir`` is replaced
    while a batch runs, and notes that a task has moved.

    Parameters
    ----------
    on_move : callable
        Called when a task has changed the current folder.

    Attributes
    ----------
    home : str
        Where tasks run; empty: wherever the process is.
    moved : bool
        Whether the task that is running has changed the current folder.
    """

    def __init__(self, on_move: Callable[[], None]) -> None:
        self.home = ""
        self.moved = False
        self._told = False
        self._before = ""
        self._left = False
        self._on_move = on_move
        self._real = (os.chdir, os.fchdir)
        self._noting = (self._noted(os.chdir), self._noted(os.fchdir))

    def __enter__(self) -> None:
        """Enter the folder before a batch."""
        if self.home:
            self._before = current_folder()
            self.moved = self._left = False
            if self._before != self.home:
                self._left = True
                self._enter()
            self._replace(*self._noting)

    def __exit__(self, *_: object) -> None:
        """Go back to where the process was."""
        if self.home:
            self._replace(*self._real)
            if self._left and self._before:
                with contextlib.suppress(OSError):
                    os.chdir(self._before)

    @staticmethod
    def _replace(chdir: Change, fchdir: Change) -> None:
        _OS.chdir, _OS.fchdir = chdir, fchdir
        if _POSIX is not None:
            _POSIX.chdir, _POSIX.fchdir = chdir, fchdir

    def leave(self) -> str:
        """Let other batches run in folders of their own; returns the current one."""
        self._replace(*self._real)
        return current_folder()

    def come_back(self, folder: str) -> None:
        """Go on with the task that was in `folder`."""
        if current_folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)
        self._replace(*self._noting)

    def restore(self) -> None:
        """Put the folder back that a task has left."""
        self._enter()
        self.moved = False

    def _enter(self) -> None:
        try:
            os.chdir(self.home)
        except OSError as error:
            if not self._told:
                self._told = True
                say(
                    f"the job's current folder {self.home} cannot be entered here ({error.strerror}), so "
                    "tasks run elsewhere: start the job in a folder that all hosts share"
                )

    def _noted(self, change: Change) -> Change:
        def changed(path: Any) -> None:
            change(path)
            self.moved = self._left = True
            self._on_move()

        return changed
