"""Arguments of queued calls, pickled or plain, that can be sliced into batches."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from taskfarm import interrupts
from taskfarm.errors import CallNotPicklable, SharedDataError, wrap
from taskfarm.protocol import shared
from taskfarm.protocol.dependency_failures import NoResult
from taskfarm.protocol.describe import describe_call, hint
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.messages import NO_BLOB, Blob, Calls
from taskfarm.protocol.references import THREAD, Given, foreign_future, joined
from taskfarm.protocol.serialize import dump_plain, dumps, nbytes, plain_nbytes

_OTHER_FARM = (
    "an argument is a future of another farm, or contains one: submit both tasks to one farm, or pass the "
    "result()"
)
_NOTHING: Mapping[int, Any] = MappingProxyType({})


class Arguments:
    """Arguments of consecutive calls, as they were when the calls were queued.

    Plain arguments stay in columns, and a slice of the columns is pickled as a whole. Other arguments are
    pickled immediately, call by call, so that the caller may change them afterwards, and a call that cannot
    be pickled or unpickled fails alone. Large buffers are not copied: arrays of 32 KiB and more must not be
    changed until their task has ended.

    Attributes
    ----------
    columns : sequence of sequences
        Plain arguments, one column for each position; empty if some arguments are not plain.
    count : int
        Number of calls.
    call_nbytes : int
        Approximate size of the largest call, in bytes.
    errors : dict of int to CallNotPicklable or NoResult
        The calls that cannot be sent, by offset.
    unpickled : list of (tuple, mapping)
        The arguments of calls that are not plain, as they were given, until the calls are queued.
    handles : list of Shared
        The handles to which the calls refer, and their function, so that they are not freed before.
    expected : sequence of float
        How many seconds each call should take, if their function tells.
    futures : mapping of int to dict
        The futures to which calls refer and whose results they have not got yet: by the offset of the call,
        and by their keys.
    described : mapping of int to str
        The arguments of these calls as messages show them.
    """

    # A call with plain arguments has nothing of these, and costs nothing for them.
    count = 1
    call_nbytes = 0
    columns: Sequence[Sequence[Any]] = ()
    errors: Mapping[int, Exception] = _NOTHING
    unpickled: Any = ()
    handles: Sequence[shared.Shared[Any]] = ()
    expected: Sequence[float] = ()
    futures: Mapping[int, dict[int, Any]] = _NOTHING
    described: Mapping[int, str] = _NOTHING
    _blobs: Any = ()
    _given: dict[int, dict[int, Given]] | None = None

    def __init__(self, count: int) -> None:
        self.count = count

    @classmethod
    def from_call(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Arguments":
        """Arguments of one call."""
        largest = plain_nbytes(args) if args and not kwargs else None
        self = cls.__new__(cls)
        if largest is None:
            self._pickle_all([args], kwargs)
        else:
            self.columns = [args] if len(args) == 1 else [(arg,) for arg in args]
            self.call_nbytes = largest * len(args)
        return self

    @classmethod
    def from_columns(cls, columns: Sequence[Sequence[Any]]) -> "Arguments":
        """Positional arguments of many calls: one column for each position, all of the same length."""
        self = cls(len(columns[0]))
        column_nbytes = list(map(_column_nbytes if shared.OPEN else plain_nbytes, columns))
        if None in column_nbytes:
            self._pickle_all(zip(*columns, strict=True), {})
        else:
            self.columns = columns
            self.call_nbytes = sum(filter(None, column_nbytes))
        return self

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Any, ...]]) -> "Arguments":
        """Positional arguments of many calls, one tuple per call."""
        if len(set(map(len, rows))) == 1 and rows[0]:
            return cls.from_columns(list(zip(*rows, strict=True)))
        self = cls(len(rows))
        self._pickle_all(rows, {})
        return self

    @classmethod
    def from_blobs(cls, blobs: list[Blob], futures: dict[int, dict[int, Any]]) -> "Arguments":
        """Arguments of calls that a task has pickled, and the futures to which they refer."""
        self = cls(len(blobs))
        self._blobs = blobs
        if futures:
            self.futures = futures
        self.call_nbytes = max(map(nbytes, blobs))
        return self

    def _pickle_all(self, rows: Iterable[tuple[Any, ...]], kwargs: Mapping[str, Any]) -> None:
        """Pickle the calls one by one."""
        self._blobs, self.unpickled = [], []
        for offset, args in enumerate(rows):
            self._pickle(offset, args, kwargs)

    def _pickle(self, offset: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        blob = NO_BLOB
        # As `Collected` does, at less cost.
        futures: list[Any] = []
        before = THREAD.found
        THREAD.found = futures
        try:
            blob = dumps((args, kwargs))
            if shared.OPEN and (tokens := shared.tokens_in(blob)):
                futures.clear()
                blob = _with_values(args, kwargs)
                self.handles = [*self.handles, *shared.alive(tokens)]
            if futures:
                self._refer(offset, args, kwargs, futures)
            if "distributed" in sys.modules and (foreign := foreign_future((args, kwargs))):
                # Its futures can be pickled.
                raise foreign
        except BaseException as error:
            if interrupts.is_interrupt(error):
                raise
            found = error if isinstance(error, NoResult) else _not_picklable(error, args, kwargs)
            self._fail(offset, found)
        finally:
            THREAD.found = before
        self._blobs.append(blob)
        self.unpickled.append((args, kwargs))
        self.call_nbytes = max(self.call_nbytes, nbytes(blob))

    def _fail(self, offset: int, error: Exception) -> None:
        """Let the call at `offset` fail: it cannot be sent."""
        self.errors = {**self.errors, offset: error}

    def _refer(
        self, offset: int, args: tuple[Any, ...], kwargs: Mapping[str, Any], futures: list[Any]
    ) -> None:
        """Note that a call refers to futures."""
        if self.futures is _NOTHING:
            self.futures, self.described = {}, {}
        self.futures[offset] = {future.key: future for future in futures}  # type: ignore[index]
        self.described[offset] = describe_call("", args, kwargs)  # type: ignore[index]

    def refuse_others(self, master: Any, farm: int) -> None:
        """Let calls fail that refer to a future of another farm than theirs."""
        for offset, futures in list(self.futures.items()):
            if any(future.master is not master or future.farm != farm for future in futures.values()):
                self._fail(offset, wrap(CallNotPicklable, TypeError(), _OTHER_FARM))
                del self.futures[offset]  # type: ignore[attr-defined]

    def give(self, offset: int, task: int, given: Given) -> None:
        """Let the call at `offset` find the result of a task, if it refers to it."""
        if self.futures.get(offset, {}).pop(task, None) is None:
            return
        if self._given is None:
            self._given = {}
        self._given.setdefault(offset, {})[task] = given
        blob, result = self._blobs[offset], given.blob
        self._blobs[offset] = blob._replace(
            needs=joined(blob.needs, result.needs), results=(*blob.results, (task, given.for_call()))
        )
        self.call_nbytes = max(self.call_nbytes, nbytes(self._blobs[offset]))

    def take_back(self, offset: int, count: int) -> None:
        """Drop the results that were given to calls which have ended."""
        if self._given is not None:
            for one in range(offset, offset + count):
                if self._given.pop(one, None) is not None:
                    self._blobs[one] = NO_BLOB

    def withdraw_kept(self, offset: int) -> list[Any]:
        """Let the call at `offset` refer to the kept results again that it was given; returns these."""
        given = (self._given or {}).get(offset, {})
        kept = {task: one.kept for task, one in given.items() if one.kept is not None}
        if kept:
            for task in kept:
                del given[task]
            self.futures[offset].update(kept)
            blob = self._blobs[offset]
            results = tuple(result for result in blob.results if result[0] not in kept)
            self._blobs[offset] = blob._replace(results=results)
        return list(kept.values())

    def call(self, offset: int) -> tuple["Arguments", list[Any]]:
        """The call at `offset` by itself without the kept results that it was given, and these."""
        one = Arguments(1)
        one.call_nbytes, one.handles = self.call_nbytes, self.handles
        one.expected = self.expected[offset : offset + 1]
        if self.columns:
            one.columns = [column[offset : offset + 1] for column in self.columns]
            return one, []
        one._blobs = [self._blobs[offset]]
        one.described = {0: self.described.get(offset, "()")}
        one._given = {0: dict((self._given or {}).get(offset, {}))}
        one.futures = {0: {}}
        kept = one.withdraw_kept(0)
        one.futures = _NOTHING
        return one, kept

    def chained(self, offset: int) -> Blob:
        """The call at `offset`, for a worker that has the results it was not given."""
        blob: Blob = self._blobs[offset]
        return blob._replace(results=(*blob.results, *((task, None) for task in self.futures[offset])))

    def describe(self, name: str, offset: int) -> str:
        """The call at `offset` as messages show it."""
        if self.columns:
            return describe_call(name, [column[offset] for column in self.columns], {})
        return name + self.described.get(offset, "")

    def blobs(self) -> list[Blob]:
        """All calls, each pickled separately."""
        if self.columns:
            return [_with_values(args, {}) for args in zip(*self.columns, strict=True)]
        return self._blobs  # type: ignore[no-any-return]

    def slice(self, offset: int, count: int) -> Calls:
        """The `count` calls from `offset` on, as a message carries them."""
        if self.columns:
            if count < self.count:
                return dump_plain([column[offset : offset + count] for column in self.columns])
            return dump_plain(self.columns)
        return self._blobs[offset : offset + count]  # type: ignore[no-any-return]


def _not_picklable(error: BaseException, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Exception:
    """The exception of a call whose arguments cannot be pickled."""
    advice = hint(error) or (
        "Pass plain data or arrays: create open files, locks and connections inside the task or in "
        "the farm's initializer"
    )
    known: Any = error if isinstance(error, SharedDataError) else foreign_future((args, kwargs))
    text = f"an argument cannot be pickled: {summarize(known or error)}"
    if known is None:
        text += f". {advice}"
    return wrap(CallNotPicklable, known or error, text)


def _with_values(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Blob:
    """Pickle a call so that a handle which is an argument arrives as its value."""
    values = tuple(map(shared.as_value, args))
    return dumps((values, {name: shared.as_value(value) for name, value in kwargs.items()}))


def _column_nbytes(column: Sequence[Any]) -> int | None:
    """As `plain_nbytes`. A column of handles is plain, too: the worker replaces them by their values."""
    if type(column[0]) is shared.Shared and set(map(type, column)) == {shared.Shared}:
        return shared.HANDLE_BYTES
    return plain_nbytes(column)


def join_calls(singles: Sequence[Arguments]) -> Calls:
    """Calls that were queued one by one, as one message carries them together."""
    if columns := join_columns([single.columns for single in singles]):
        return dump_plain(columns)
    return [blob for single in singles for blob in single.blobs()]


def join_columns(singles: Sequence[Sequence[Sequence[Any]]]) -> list[list[Any]]:
    """The columns of single calls, joined; empty if some have none, or another number."""
    if not all(singles) or len(set(map(len, singles))) != 1:
        return []
    return [[cell for (cell,) in column] for column in zip(*singles, strict=True)]
