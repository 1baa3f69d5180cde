"""Text for messages: calls with shortened arguments, and hints on errors whose cause is known."""

import os
import reprlib
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CALL_LENGTH = 200
"""Longest description of a call, in characters."""


class _Short(reprlib.Repr):
    """Shortens the repr of any object; shows an array as its shape and dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 60

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
    name = getattr(function, "name", None)
    if not isinstance(name, str):
        wrapped = getattr(function, "func", None)
        name = getattr(function, "__qualname__", None) or getattr(wrapped, "__qualname__", None)
    return name or type(function).__qualname__


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
        places = ", ".join(place or current_folder() for place in sys.path if isinstance(place, str))
        return (
            f"Install the module {error.name!r} for the workers too, or put it next to the job; "
            f"looked in {places}"
        )
    path = error.filename if isinstance(error, FileNotFoundError) else None
    if isinstance(path, str) and not os.path.isabs(path):
        return f"{path!r} was looked for in {current_folder()} on {socket.gethostname()}"
    return ""


def current_folder() -> str:
    """The current folder in messages; it may have been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return "a current folder that has been deleted"
