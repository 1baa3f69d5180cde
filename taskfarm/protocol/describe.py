"""A call and its failure in words: shortened arguments, and hints where the cause is known."""

import os
import reprlib
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 200
"""Characters of a call at most."""


class _Short(reprlib.Repr):
    """Shortens what is shown of any object; arrays by shape and type."""

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
    """What to call a function in messages: the task's name, the function's, or its type's."""
    name = getattr(function, "name", None)
    if not isinstance(name, str):
        name = getattr(function, "__qualname__", None) or getattr(
            getattr(function, "func", None), "__qualname__", None
        )
    return name or type(function).__qualname__


def describe_call(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """A call as its caller would have written it, shortened."""
    shown = [_SHORT.repr(value) for value in arguments]
    shown += [f"{key}={_SHORT.repr(value)}" for key, value in keywords.items()]
    text = f"{name}({', '.join(shown)})"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...)"


def hint(error: BaseException) -> str:
    """What to do about an error whose cause is known; empty for others."""
    if isinstance(error, ModuleNotFoundError):
        places = ", ".join(place or os.getcwd() for place in sys.path)
        return (
            f"Install the module {error.name!r} for the workers too, or put it beside the job; "
            f"looked in {places}"
        )
    path = error.filename if isinstance(error, FileNotFoundError) else None
    if isinstance(path, str) and not os.path.isabs(path):
        return f"{path!r} was looked for in {os.getcwd()} on {socket.gethostname()}"
    return ""
