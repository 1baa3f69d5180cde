"""How long calls should take, by the option ``expect`` of their function."""

from collections.abc import Callable
from typing import Any

from taskfarm.errors import UsageError
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.shared import value_of
from taskfarm.schedule.amounts import duration


def expect_calls(function: RegisteredFunction, arguments: Arguments) -> None:
    """Note how long each of some calls should take, before they are queued.

    Raises
    ------
    UsageError
        The ``expect`` of the function fails, or returns something else than seconds.
    """
    expect = function.policy.expect
    assert callable(expect)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    try:
        if arguments.columns:
            calls = [(tuple(map(value_of, args)), {}) for args in zip(*arguments.columns, strict=True)]
        else:
            calls = [(args, dict(kwargs)) for args, kwargs in arguments.unpickled]
        arguments.expected = [duration("expect", expect(*args, **kwargs)) for args, kwargs in calls]
    except Exception as error:
        raise UsageError(
            f"the expect= of {function.name} raised {summarize(error)}: let it accept the arguments of "
            "every call, and return seconds"
        ) from error


def expect_block(expect: Callable[..., Any], /, rows: range, *blocks: Any) -> Any:
    """How long the call with a block should take, by the ``expect`` of the function."""
    return expect(*blocks)
