"""What the user should know of what travels with a function; each line is said once."""

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from taskfarm.console import say
from taskfarm.protocol.task_base import unwrap_task

LARGE = 1 << 20
"""Size of the data of a function, in bytes, from which it is worth a line."""


class Advice:
    """Says each line once.

    Parameters
    ----------
    write : callable
        Called with a line.
    """

    def __init__(self, write: Callable[[str], None] = say) -> None:
        self._write = write
        self._said: set[tuple[str, str]] = set()

    def of_size(self, what: str, nbytes: int) -> None:
        """Say that something large travels with a function."""
        if nbytes >= LARGE and self._is_new("size", what):
            self._write(
                f"{what} has {nbytes / 1e6:.1f} MB, which travel to every worker, and again whenever they "
                "change; `taskfarm.share` sends them once to each host, `taskfarm.build` makes them there"
            )

    def of_generators(self, what: str, values: Iterable[Any]) -> None:
        """Say what becomes of a generator of random numbers that belongs to the job."""
        for value in values:
            if _is_generator(value) and self._is_new("generator", what):
                self._write(
                    f"{what} is a generator of random numbers: every worker draws the same numbers from a "
                    "copy of it; use `taskfarm.rng()` in tasks"
                )

    def _is_new(self, kind: str, what: str) -> bool:
        new = (kind, what) not in self._said
        self._said.add((kind, what))
        return new


def captured(function: Any) -> Iterator[Any]:
    """The values in the defaults and in the closure of a function."""
    function = unwrap_task(function)
    if type(function) is FunctionType:
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue


def _is_generator(value: Any) -> bool:
    random, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    kinds = [getattr(random, "Random", None)]
    kinds += [getattr(numpy, name, None) for name in ("Generator", "RandomState")]
    return any(isinstance(kind, type) and issubclass(type(value), kind) for kind in kinds)


ADVICE = Advice()
"""What this process has said."""
