"""The keys of calls: from function, code and arguments, and the number of equal calls before."""

import marshal
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from taskfarm.errors import JournalError
from taskfarm.journal.code_digest import CodeWalk
from taskfarm.journal.value_digest import SCALARS, combine, number_types, plain_bytes
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.serialize import loads


def _state(*parts: bytes) -> Any:
    state = blake2b(digest_size=16)
    for part in parts:
        state.update(b"%d:" % len(part))
        state.update(part)
    return state


class CallKeys:
    """Computes the keys of calls, and counts equal calls in this run.

    Parameters
    ----------
    report_unknown : callable
        Called with the name of a function and with what its arguments hold that no other run can tell to
        be equal.
    """

    def __init__(self, report_unknown: Callable[[str, list[str]], None]) -> None:
        self._seen: dict[bytes, int] = {}
        self._report_unknown = report_unknown
        self._walk = CodeWalk()

    def of(
        self,
        function: RegisteredFunction,
        code: bytes,
        arguments: Arguments,
        place: tuple[tuple[int, ...], int] | None = None,
    ) -> list[bytes]:
        """The key of each call, 16 bytes; `code` stands for the code of the function.

        Calls that a task has submitted have a `place`: which task, and the index of the first of them.
        The order in which rank 0 learns of them depends on the schedule, so they are not counted.
        """
        name = function.name.encode("utf-8", "surrogatepass")
        if function.policy.key is None:
            bases = list(_by_arguments(_state(name, code), arguments, self._walk))
            if self._walk.unknown:
                self._report_unknown(function.name, list(self._walk.unknown))
            self._walk.forget()
            if place is not None:
                stream, index = place
                return [
                    _state(base, repr((stream, index + at)).encode()).digest()
                    for at, base in enumerate(bases)
                ]
        else:
            bases = _by_user(_state(name, b"key"), function, arguments)
        fresh = dict.fromkeys(bases, 1)
        if len(fresh) == len(bases) and self._seen.keys().isdisjoint(fresh):
            self._seen.update(fresh)
            return bases
        return list(map(self._number, bases))

    def _number(self, base: bytes) -> bytes:
        before = self._seen.get(base, 0)
        self._seen[base] = before + 1
        return ((int.from_bytes(base, "big") + before) % (1 << 128)).to_bytes(16, "big")


def _by_arguments(state: Any, arguments: Arguments, walk: CodeWalk) -> Iterator[bytes]:
    # A call may be queued among plain calls in one run and among others in the next.
    if arguments.columns:
        builtin = all(set(map(type, column)) <= SCALARS for column in arguments.columns)
        for row in zip(*arguments.columns, strict=True):
            call = state.copy()
            call.update(marshal.dumps(row, 2) if builtin else _bytes_of_call(row, {}, walk))
            yield call.digest()
        return
    for offset, (args, kwargs) in enumerate(arguments.unpickled):
        call = state.copy()
        if offset not in arguments.errors:
            call.update(_bytes_of_call(args, kwargs, walk))
        yield call.digest()


def _bytes_of_call(args: tuple[Any, ...], kwargs: Any, walk: CodeWalk) -> bytes:
    if not kwargs:
        if (plain := plain_bytes(args)) is not None:
            return plain
        numbers = number_types(sys.modules["numpy"]) if "numpy" in sys.modules else SCALARS
        if set(map(type, args)) <= SCALARS | numbers:
            cells = [
                cell if type(cell) in SCALARS else [type(cell).__name__, cell.tobytes()] for cell in args
            ]
            return b"numbers" + marshal.dumps(cells, 2)
    return combine("call", walk.of(args), walk.of(dict(kwargs)))


def _by_user(state: Any, function: RegisteredFunction, arguments: Arguments) -> list[bytes]:
    bases = []
    for offset, blob in enumerate(arguments.blobs()):
        call = state.copy()
        if offset not in arguments.errors:
            args, kwargs = loads(blob)
            try:
                key = function.policy.key(*args, **kwargs)  # type: ignore[misc]  # not None here
            except Exception as error:
                raise JournalError(
                    f"the key= of {function.name} raised {summarize(error)}: make it accept the arguments "
                    "of every call"
                ) from error
            call.update(repr(_canonical(function.name, key)).encode("utf-8", "surrogatepass"))
        bases.append(call.digest())
    return bases


def _canonical(name: str, key: Any) -> Any:
    """The key as plain values, which differ if their reprs do."""
    if isinstance(key, tuple):
        return tuple(_canonical(name, part) for part in key)
    if type(key) in (bool, str, bytes, int, float):
        return key
    if hasattr(key, "dtype") and getattr(key, "shape", None) == ():
        return _canonical(name, key.item())
    if isinstance(key, str):  # a subclass, such as an enumeration
        return "".join(key)
    if isinstance(key, int):
        return int(key)
    raise JournalError(
        f"the key= of {name} returned {type(key).__qualname__}: make it return str, bytes, int, float "
        "or a tuple of these"
    )
