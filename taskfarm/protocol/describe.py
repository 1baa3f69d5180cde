"""Text for messages: calls with shortened arguments, and hints on errors whose cause is known."""

import contextlib
import os
import reprlib
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from taskfarm.environment import current_folder
from taskfarm.protocol.task_base import is_task

MAX_CALL_LENGTH = 200
"""Longest description of a call, in characters."""


_READ_ONLY = "read-only"
"""What numpy, and libraries on top of it, say of memory that cannot be written."""


class _Short(reprlib.Repr):
    """Shortens the repr of any object; shows an array as its shape and dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 60

    def repr_Future(self, x: Any, level: int) -> str:
        """Show a future as the task whose result it is."""
        task = getattr(x, "task_id", None)
        return repr(x)[: self.maxother] if task is None else f"<task {task}>"

    def repr1(self, x: Any, level: int) -> str:
        """Show an object on one line, whatever its ``__repr__`` does."""
        try:
            if getattr(x, "shape", ()) and hasattr(x, "dtype"):
                return f"{type(x).__name__}(shape={x.shape}, dtype={x.dtype})"
            return " ".join(super().repr1(x, level).split())
        except BaseException:
            return f"<{type(x).__name__}>"


_SHORT = _Short()


def name_of(function: Any) -> str:
    """The name of a function in messages: that of the task, of the function, or of its type."""
    if is_task(function):
        return str(function.name)
    for find in (_qualname, lambda found: _qualname(found.func), lambda found: type(found).__qualname__):
        # An object may raise anything when it is asked for an attribute.
        with contextlib.suppress(Exception):
            name = find(function)
            if isinstance(name, str) and name:
                return name
    return "function"


def _qualname(function: Any) -> Any:
    return function.name if is_task(function) else function.__qualname__


def describe_call(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """A call as its caller would write it, shortened."""
    shown = [_SHORT.repr(value) for value in arguments]
    shown += [f"{key}={_SHORT.repr(value)}" for key, value in keywords.items()]
    text = f"{name}({', '.join(shown)})"
    return text if len(text) <= MAX_CALL_LENGTH else f"{text[: MAX_CALL_LENGTH - 4]}...)"


def hint(error: BaseException) -> str:
    """What to do about an error whose cause is known; empty for any other error. This never raises."""
    try:
        return _hint(error)
    except BaseException:
        # Of what the exception's class, or an entry of the path, does when it is looked at.
        return ""


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        places = ", ".join(place or shown_folder() for place in sys.path if isinstance(place, str))
        return (
            f"Install the module {error.name!r} for the workers too, or put it next to the job; "
            f"looked in {places}"
        )
    if isinstance(error, MemoryError):
        # There may be no memory for this, either.
        with contextlib.suppress(Exception):
            return _memory_hint()
        return ""
    if isinstance(error, ValueError) and _READ_ONLY in str(error) and _shares_data():
        return (
            "Data of `taskfarm.share` is read-only, because other tasks read the same memory: change a "
            "copy of it (`table = table.copy()`)"
        )
    path = error.filename if isinstance(error, FileNotFoundError) else None
    if isinstance(path, str) and not os.path.isabs(path):
        return f"{path!r} was looked for in {shown_folder()} on {socket.gethostname()}"
    return ""


def _shares_data() -> bool:
    """Whether this process has met shared data."""
    return "taskfarm.transport.segments" in sys.modules and "taskfarm.protocol.layout" in sys.modules


def shown_folder() -> str:
    """The current folder in messages; it may have been deleted."""
    return current_folder() or "a current folder that has been deleted"


def megabytes(size: int) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:,.4g} MB"


def _memory_hint() -> str:
    """How much memory this process holds and may hold, and what to do if that is not enough."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    advice = "let the task use or send less at a time, or start fewer ranks on each host"
    if limit == resource.RLIM_INFINITY:
        return f"{advice[0].upper()}{advice[1:]}"
    held = ""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            held = f", and holds {megabytes(int(file.read().split()[0]) * resource.getpagesize())}"
    return f"This process may allocate {megabytes(limit)} (`ulimit -v`){held}: {advice}, or raise the limit"
