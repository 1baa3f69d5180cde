"""The names that a table of results gives to its columns: those of parameters and of fields."""

import inspect
import sys
from typing import Any


def positional_parameters(function: Any) -> list[str]:
    """The names of a function's positional parameters; empty if it does not say."""
    try:
        found = inspect.signature(function).parameters.values()
    except Exception:
        # Any object may be a function, and tell anything about itself.
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in found if parameter.kind in kinds]


def named_tuples() -> dict[str, list[str]]:
    """The names of the fields of each named tuple that the job's file defines."""
    return {
        name: list(found._fields)  # type: ignore[attr-defined]
        for name, found in list(vars(sys.modules["__main__"]).items())
        if isinstance(found, type)
        and issubclass(found, tuple)
        and (found.__module__, found.__qualname__) == ("__main__", name)
        and isinstance(getattr(found, "_fields", None), tuple)
    }
