"""The globals that an initializer sets, for the tasks that follow it.

Functions of ``__main__`` travel by value, each with globals of its own. Without this, a task would not see
what the initializer has set.
"""

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

_MISSING = object()


class InitializerGlobals:
    """What the initializer has set among the globals of ``__main__``, to be copied into functions of it."""

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

    def apply_to(self, function: Any) -> None:
        """Copy them into the globals of a function, and of those that travelled with it."""
        if self._set:
            _globals(function).update(self._set)


def _globals(function: Any) -> dict[str, Any]:
    """The globals of a function of ``__main__``, whatever wraps it; an empty dict for other functions."""
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
