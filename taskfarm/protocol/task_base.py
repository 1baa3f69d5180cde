"""What the protocol knows of `@task`: which function it wraps, and how its calls are run."""

from collections.abc import Callable
from typing import Any


class TaskBase:
    """The base of `taskfarm.Task`.

    It is looked for among the types of objects, never among their attributes: `functools.wraps` copies
    attributes, and an object may have any attribute that it is asked for.
    """

    __taskfarm_function__: Callable[..., Any]
    __taskfarm_policy__: dict[str, Any]
    _options: dict[str, Any]


def is_task(value: Any) -> bool:
    """Whether a value is a task; unlike isinstance, this does not ask the value itself."""
    return issubclass(type(value), TaskBase)


def unwrap_task(value: Any) -> Any:
    """The function of a task; any other value unchanged."""
    return value.__taskfarm_function__ if is_task(value) else value


def policy_of(value: Any) -> dict[str, Any]:
    """The options of a task that say how its calls are run; empty for other callables."""
    return value.__taskfarm_policy__ if is_task(value) else {}
