"""Lets the initializer of a pool set globals that its tasks see, as it does where ``__main__`` is shared.

Functions of ``__main__`` travel by value, each with globals of its own, so what one sets no other
would find.
"""

from collections.abc import Callable
from typing import Any

from taskfarm.functions import name_of

_found: dict[str, Any] = {}
"""In a worker: the globals of the initializer that ran last. It and tasks share nothing but the process."""


class Setting:
    """An initializer that leaves its globals to the tasks after it."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        """Call it."""
        self._function(*args)
        namespace = getattr(self._function, "__globals__", {})
        _found.clear()
        _found.update({name: value for name, value in namespace.items() if not name.startswith("__")})


class Seeing:
    """A function that sees the globals of the initializer."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.name = name_of(function)
        self.__taskfarm_policy__ = getattr(function, "__taskfarm_policy__", {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        inner = self._function
        for wrapped in ("__taskfarm_function__", "func", "__func__"):
            inner = getattr(inner, wrapped, inner)
        namespace = getattr(inner, "__globals__", {})
        if namespace.get("__name__") == "__main__":
            namespace.update(_found)
        return self._function(*args, **kwargs)


def sets(initializer: Callable[..., object] | None) -> bool:
    """Whether it may set globals of ``__main__``."""
    return getattr(initializer, "__module__", None) == "__main__"
