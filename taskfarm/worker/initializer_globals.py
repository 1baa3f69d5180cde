"""Globals that an initializer sets, for the tasks after it.

Functions of ``__main__`` travel by value, each with globals of its own: what one sets no other would find.
"""

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

_MISSING = object()


class SharedGlobals:
    """What the initializer has set among the globals of ``__main__``, and gives to functions of it."""

    def __init__(self) -> None:
        self._set: dict[str, Any] = {}

    def run(self, initializer: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """Call an initializer, and keep the globals that it sets."""
        namespace = _globals(initializer)
        before = dict(namespace)
        initializer(*arguments)
        self._set = {
            name: value for name, value in namespace.items() if before.get(name, _MISSING) is not value
        }

    def give(self, function: Any) -> None:
        """Let a function, and those that travelled with it, find them."""
        if self._set:
            _globals(function).update(self._set)


def _globals(function: Any) -> dict[str, Any]:
    """The globals of a function of ``__main__``, whatever it is wrapped in; none for others."""
    while not isinstance(function, FunctionType):
        if isinstance(function, MethodType):
            function = function.__func__
            continue
        for name in ("__taskfarm_function__", "func"):
            if name in getattr(function, "__dict__", {}) or hasattr(type(function), name):
                function = getattr(function, name)
                break
        else:
            return {}
    found: dict[str, Any] = function.__globals__
    return found if found.get("__name__") == "__main__" else {}
