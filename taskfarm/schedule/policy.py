"""How a function's tasks are run: retries, limits, isolation and the handling of errors. Plain values."""

import math
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from taskfarm.schedule.amounts import Needs
    from taskfarm.schedule.lanes import Demand

OnError: TypeAlias = str | Callable[[BaseException], Any]

MAX_BYTES = 2**63
"""Bytes from which a size is beyond what the system can count."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?", re.IGNORECASE)


class Policy(NamedTuple):
    """How the tasks of a function are run.

    Attributes
    ----------
    retries : int
        Maximum number of times that a failed task is retried.
    timeout : float or None
        Seconds after which a call is ended by force.
    memory : int or None
        Bytes of memory that a task may use.
    isolate : bool
        Whether the worker runs the tasks in a child process, as it also does if there is a limit.
    on_error : {"raise", "return"} or callable
        What happens to the exception of a task: it is raised when the caller asks for the result, or
        returned in place of the result. A callable, called on rank 0 with the exception, returns the
        value to use as the result.
    key : callable or None
        Called with the arguments of a call, returns the value that identifies the call in a journal,
        instead of the code and the arguments.
    keep : bool
        Whether large results of `submit` stay with the worker that made them until somebody needs them.
    priority : float
        Tasks with a higher one start sooner.
    needs : Needs
        The resources that a task holds while it runs.
    expect : float, callable or None
        Seconds that a task should take; a callable returns those of a call from its arguments. None: as
        long as those before it.
    order : {"submitted", "longest"}
        Which of these tasks start first.
    max_tasks : int
        Tasks after which the child process that runs them is replaced; 0: never.
    ranks : int
        Workers that run a task together, as the ranks of `taskfarm.comm`.
    hosts : int or None
        1 if all of them must be on one host; None: they may be anywhere.
    """

    retries: int = 0
    timeout: float | None = None
    memory: int | None = None
    isolate: bool = False
    on_error: OnError = "raise"
    key: Callable[..., Any] | None = None
    keep: bool = False
    priority: float = 0
    needs: "Needs" = ()
    expect: float | Callable[..., Any] | None = None
    order: str = "submitted"
    max_tasks: int = 0
    ranks: int = 1
    hosts: int | None = None

    @property
    def isolated(self) -> bool:
        """Whether the tasks run in a child process of the worker."""
        return self.isolate or self.timeout is not None or self.memory is not None or self.max_tasks > 0

    @property
    def demand(self) -> "Demand | None":
        """How the scheduler chooses these tasks; None if they are like most."""
        if not (
            self.priority
            or self.needs
            or self.expect is not None
            or self.order != "submitted"
            or self.ranks > 1
        ):
            return None
        from taskfarm.schedule.lanes import Demand

        by_call = callable(self.expect)
        seconds = None if by_call else self.expect
        longest, hosts = self.order == "longest", self.hosts if self.ranks > 1 else None
        return Demand(self.priority, self.needs, seconds, longest, by_call, self.ranks, hosts)  # type: ignore[arg-type]

    def changed(self, options: Mapping[str, Any]) -> "Policy":
        """Return a copy with other values, each checked.

        Raises
        ------
        TypeError, ValueError
            A value has the wrong type or is out of range.
        """
        return self._replace(**{name: _CHECKS[name](name, value) for name, value in options.items()})


def _integer(name: str, value: Any, least: int, kind: str = "an integer") -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {kind}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")
    return value


def _retries(name: str, value: Any) -> int:
    return _integer(name, value, 0)


def _timeout(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not 0 < value < 1e9:
        raise ValueError(f"{name} must be a positive number of seconds, not {value}")
    return float(value)


def size(name: str, value: Any) -> int | None:
    """Return bytes, from a number or a string such as ``"2GB"`` or ``"512 MiB"``.

    Raises
    ------
    TypeError, ValueError
        The value is neither.
    """
    if value is None:
        return None
    if isinstance(value, str):
        read = read_size(value)
        if read is None:
            raise ValueError(f"{name} must be a number of bytes such as 2GB or 512MiB, not {value!r}")
        value = int(min(read, MAX_BYTES))
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a number of bytes or a string such as '2GB', not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least one byte, not {value}")
    if value >= MAX_BYTES:
        raise ValueError(f"{name} must be less than 2**63 bytes")
    return value


def read_size(text: str) -> float | None:
    """Return the number that a text such as ``20``, ``2.5GB`` or ``512 MiB`` stands for; None if none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit, binary = match.groups()
    power = " kmgt".index((unit or " ").lower())
    return float(number) * float((1024 if binary else 1000) ** power)


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _on_error(name: str, value: Any) -> OnError:
    if callable(value) or value in ("raise", "return"):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"{name} must be 'raise', 'return' or a callable, not {value!r}")


def _key(name: str, value: Any) -> Callable[..., Any] | None:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    raise TypeError(f"{name} must be a callable or None, not {value!r}")


def priority(name: str, value: Any) -> float:
    """Return a priority: any number that can be compared.

    Raises
    ------
    TypeError, ValueError
        It is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, and a higher one is sooner, not {value!r}")
    if math.isnan(number := to_float(value)):
        raise ValueError(f"{name} must be a number, not {value}")
    return number


def to_float(value: Any) -> float:
    """Return a number as a float; one that is too large is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _needs(name: str, value: Any) -> "Needs":
    # Few tasks have needs, and workers load this file, too.
    from taskfarm.schedule.amounts import needs

    return needs(name, value)


def _expect(name: str, value: Any) -> float | Callable[..., Any] | None:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    from taskfarm.schedule.amounts import duration

    return duration(name, value)


def order(name: str, value: Any) -> str:
    """Return an order in which tasks start.

    Raises
    ------
    ValueError
        There is no such order.
    """
    if value in ("submitted", "longest"):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"{name} must be 'submitted' or 'longest', not {value!r}")


def _max_tasks(name: str, value: Any) -> int:
    return 0 if value is None else _integer(name, value, 1, "an integer or None")


def _ranks(name: str, value: Any) -> int:
    return _integer(name, value, 1)


def _hosts(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or value != 1):
        raise ValueError(f"{name} must be 1 (all ranks on one host) or None (anywhere), not {value!r}")
    return None if value is None else 1


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "retries": _retries,
    "timeout": _timeout,
    "memory": size,
    "isolate": _switch,
    "on_error": _on_error,
    "key": _key,
    "keep": _switch,
    "priority": priority,
    "needs": _needs,
    "expect": _expect,
    "order": order,
    "max_tasks": _max_tasks,
    "ranks": _ranks,
    "hosts": _hosts,
}

OPTIONS = tuple(_CHECKS)
"""Names of the options."""
