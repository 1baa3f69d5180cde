"""Amounts of resources and durations, from what users write. Pure."""

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeAlias

from taskfarm.schedule.policy import read_size, to_float

SCALE = 10_000
"""Amounts are whole numbers of ten-thousandths, so that sums of fractions are exact."""

Needs: TypeAlias = tuple[tuple[str, int], ...]
"""The resources that a task holds while it runs: names, in order, and amounts in units of 1 / `SCALE`."""

NAME = re.compile(r"[A-Za-z_][\w.-]*")
"""What the name of a resource looks like."""

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def amount(name: str, value: Any) -> int:
    """Return an amount in units of 1 / `SCALE`, from a number or a string such as ``"20GB"``.

    Raises
    ------
    TypeError, ValueError
        The value is neither, or is less than a ten-thousandth.
    """
    if isinstance(value, str):
        read = read_size(value)
        if read is None:
            raise ValueError(f"{name} must be a number or a size such as 20GB, not {value!r}")
        value = read
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number or a string such as '20GB', not {value!r}")
    value = to_float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be more than 0, not {value}")
    scaled: int = round(value * SCALE)
    if not scaled:
        raise ValueError(f"{name} must be at least {1 / SCALE:g}, not {value:g}")
    return scaled


def needs(name: str, value: Any) -> Needs:
    """Return what a task needs, from a mapping, or from one name or several, of which it needs 1 each.

    Raises
    ------
    TypeError, ValueError
        A name or an amount is wrong.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = {value: 1}
    elif isinstance(value, list | tuple | set | frozenset) and all(isinstance(one, str) for one in value):
        value = dict.fromkeys(value, 1)
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} must be a dict such as {{'gpu': 1}} or the name of a resource, not {value!r}"
        )
    for resource in value:
        if not isinstance(resource, str) or not NAME.fullmatch(resource):
            raise ValueError(f"{name} must name resources by words such as 'gpu', not {resource!r}")
    return tuple(sorted((key, amount(f"{name}[{key!r}]", each)) for key, each in value.items()))


def shown(scaled: int) -> str:
    """Put an amount into words: ``2``, ``0.5`` or ``20GB``."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if scaled >= 10**power * SCALE:
            return f"{scaled / SCALE / 10**power:.6g}{unit}"
    return f"{scaled / SCALE:.10g}"


def shown_needs(wanted: Needs) -> str:
    """Put needs into words: ``gpu=1 and scratch=20GB``."""
    words = [f"{name}={shown(each)}" for name, each in wanted]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 2 else " and ".join(words)


def seconds_of(text: str) -> float | None:
    """Return the seconds of ``01:30:00``, ``2-00:00:00``, ``MM:SS``, ``90m`` or ``1.5h``; None if not."""
    match = _CLOCK.fullmatch(text)
    if match:
        days, first, second, third = match.groups()
        parts = [int(first), int(second)]
        if third:
            parts.append(int(third))
        elif days:
            # D-HH:MM
            parts.append(0)
        total = int(days or 0) * 86400
        for power, part in enumerate(reversed(parts)):
            total += part * 60**power
        return float(total) if total > 0 and max(parts[1:]) < 60 else None
    match = _LENGTH.fullmatch(text)
    if match and float(match[1]) > 0:
        return float(match[1]) * _SECONDS[match[2]]
    return None


def duration(name: str, value: Any) -> float:
    """Return seconds, from a number of them, a timedelta, or a string such as ``"10m"`` or ``"01:30:00"``.

    Raises
    ------
    TypeError, ValueError
        The value is neither.
    """
    if isinstance(value, str):
        seconds = seconds_of(value.strip())
        if seconds is None:
            raise ValueError(f"{name} must look like '10m', '1.5h', '01:30:00' or '90s', not {value!r}")
        return seconds
    try:
        if hasattr(value, "total_seconds"):
            value = value.total_seconds()
        # Also the numbers of numpy.
        seconds = to_float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a number of seconds or a string such as '10m', not {value!r}"
        ) from None
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    return seconds


def shown_seconds(seconds: float) -> str:
    """Put a duration into words: ``0.25 s``, ``90 s``, ``12.5 min`` or ``1.5 h``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.4g} h"
