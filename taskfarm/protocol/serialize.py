"""Calls and outcomes to blobs and back: cloudpickle for functions, pickle protocol 5 for data."""

import functools
import io
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from types import NoneType
from typing import Any

from taskfarm.protocol.describe import megabytes
from taskfarm.protocol.messages import IN_BAND, Blob
from taskfarm.protocol.sides import here, of_main

_NUMBERS: frozenset[type] = frozenset({int, float, complex, bool, NoneType})
_TEXTS: frozenset[type] = frozenset({str, bytes})
_NUMPY_NUMBERS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

COPIED = 1 << 14
"""Buffers of so many bytes and more, but less than `IN_BAND`, travel beside the pickle as copies."""

MANY = 64
"""From so many values on, to pickle numbers takes less time than to look at their types."""

NUMBER_BYTES = 10
"""Approximate size of a pickled number, in bytes."""


def dumps(obj: object, in_band: int = IN_BAND, reduce: Callable[[Any], Any] | None = None) -> Blob:
    """Pickle any object; what has a name in ``__main__`` is pickled by that name.

    `reduce`, a ``reducer_override``, is asked how to pickle objects that have no name there.

    Buffers of `in_band` bytes and more (numpy arrays) are not copied: the blob refers to their memory. What
    is smaller may change from now on.
    A pickle of that size is wrapped in a `PickleBuffer`, so that messages carry it out of band, too.
    The blob that the job makes lists the definitions that the names need; that of a worker, the names.

    Raises
    ------
    MemoryError
        There is no memory for the pickle; the text says how large the object is.
    Exception
        Whatever the object's own pickling raises.
    """
    buffers: list[Any] = []
    keep_in_band = collect_large(buffers, in_band)
    if reduce is None and "numpy" in sys.modules and not _by_value_modules():
        known = _array_pickles().pickled(obj, min(in_band, COPIED))
        if known is not None:
            data, array = known
            keep_in_band(pickle.PickleBuffer(array))
            return Blob(data, buffers)
    try:
        if reduce is None:
            data = pickle.dumps(obj, protocol=5, buffer_callback=keep_in_band)
        else:
            data = _reducing(obj, keep_in_band, reduce)
        needs_more = b"__main__" in data or _by_value_modules()
    except Exception:
        needs_more = True
    needs: tuple[Any, ...] = ()
    if needs_more:
        from taskfarm.protocol import by_value

        buffers.clear()
        try:
            pickled = by_value.dumps(obj, keep_in_band, reduce=reduce)
        except MemoryError as error:
            if error.args:
                raise
            size = megabytes(_minimum_size(obj))
            raise MemoryError(f"no memory for the pickle of an object of {size} or more") from error
        data = pickled.data
        if pickled.refers or pickled.uses or pickled.may_use:
            needs = _needs(pickled.refers | pickled.uses, pickled.may_use)
    return make_blob(data, buffers, needs)


class _Pickler(pickle.Pickler):
    """A pickler to whose instances a ``reducer_override`` can be given."""


def _reducing(
    obj: object, buffer_callback: Callable[[pickle.PickleBuffer], bool], reduce: Callable[[Any], Any]
) -> bytes:
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=5, buffer_callback=buffer_callback)
    pickler.reducer_override = reduce  # type: ignore[method-assign]
    pickler.dump(obj)
    return file.getvalue()


def _needs(names: set[str], may_need: set[str]) -> tuple[Any, ...]:
    """The definitions of names; from a worker, the names, since only the job knows what they stand for."""
    if not here().is_job:
        return tuple(names)
    from taskfarm.protocol.definitions import DEFINITIONS

    return DEFINITIONS.needed(names, may_need)


def collect_large(buffers: list[Any], in_band: int = IN_BAND) -> Callable[[pickle.PickleBuffer], bool]:
    """A ``buffer_callback`` that keeps small buffers in the pickle, and appends large ones to `buffers`.

    Those in between are appended as copies: to copy them with the whole pickle would cost more.
    """

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        nbytes = memoryview(buffer).nbytes
        if nbytes >= in_band:
            buffers.append(buffer)
            return False
        if nbytes < COPIED:
            return True
        buffers.append(pickle.PickleBuffer(bytearray(buffer.raw())))
        return False

    return keep_in_band


def make_blob(data: bytes, buffers: list[Any], needs: tuple[Any, ...] = ()) -> Blob:
    """A blob; a large pickle is wrapped, so that messages carry it out of band."""
    return Blob(data if len(data) < IN_BAND else pickle.PickleBuffer(data), buffers, needs)


def hash_pickle(state: blake2b, data: Any, buffers: Iterable[Any]) -> None:
    """Add a pickle and its buffers to a hash."""
    state.update(data)
    for buffer in buffers:
        state.update(pickle.PickleBuffer(buffer).raw())


class PickledCall:
    """Pickles as the result of a call.

    Parameters
    ----------
    function : callable
        What unpickling calls.
    *arguments : objects
        What it is called with.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def dump_global(path: str) -> Blob:
    """Pickle what has a name in the job's file, such as ``simulate``, by that name; as `dumps` does."""
    from taskfarm.protocol.definitions import DEFINITIONS

    data = pickle.dumps(PickledCall(of_main, path), protocol=5)
    return Blob(data, [], DEFINITIONS.needed([path.partition(".")[0]]))


def _by_value_modules() -> bool:
    """Whether the user has asked for modules to be pickled by value."""
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    return cloudpickle is not None and bool(cloudpickle._PICKLE_BY_VALUE_MODULES)


def loads(blob: Blob) -> Any:
    """Unpickle a blob; arrays that were sent out of band stay in the memory that received them.

    Raises
    ------
    MemoryError
        There is no memory for the object; the text says how large its pickle is.
    Exception
        Whatever the object's own unpickling raises.
    """
    if blob.results:
        from taskfarm.protocol.references import ResultsOf

        with ResultsOf(blob):
            return loads(blob._replace(results=()))
    data, buffers, *_ = blob
    try:
        if len(buffers) == 1 and type(data) is bytes and "numpy" in sys.modules:
            return _array_pickles().loaded(data, buffers[0])
        return pickle.loads(data, buffers=buffers)
    except MemoryError as error:
        if error.args:
            raise
        raise MemoryError(f"no memory for what a pickle of {megabytes(nbytes(blob))} contains") from error


@functools.cache
def _array_pickles() -> Any:
    """The module that knows the pickles of arrays; without numpy there are none."""
    from taskfarm.protocol import array_pickles

    return array_pickles


def nbytes(blob: Blob) -> int:
    """Size of a blob, buffers and results included, in bytes."""
    data, buffers, _, results = blob
    size = len(data) if type(data) is bytes else memoryview(data).nbytes
    for buffer in buffers:
        size += memoryview(buffer).nbytes
    return size if not results else size + sum(nbytes(result) for _, result in results)


def _minimum_size(obj: object, depth: int = 5) -> int:
    """Size of an object and of what it contains, in bytes, as far as Python tells at once."""
    size = sys.getsizeof(obj, 0)
    if depth and isinstance(obj, list | tuple | dict):
        parts = obj.values() if isinstance(obj, dict) else obj
        size += sum(_minimum_size(part, depth - 1) for part in parts)
    return size


def plain_nbytes(values: Sequence[Any]) -> int | None:
    """Approximate size of the largest value, in bytes, if all values are plain.

    A plain value is a small immutable scalar that any process can load. Plain values may share one pickle:
    none of them can fail to load, and no task can change the value of another.

    Returns
    -------
    int or None
        None if a value is not plain.
    """
    if type(values) is range or (len(values) >= MANY and _dump_numbers(values) is not None):
        return NUMBER_BYTES
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        return NUMBER_BYTES
    texts = kinds & _TEXTS
    kinds -= _NUMBERS | _TEXTS
    if kinds and not kinds <= _numpy_numbers():
        return None
    longest = max((len(v) for v in values if type(v) in texts), default=0)
    return NUMBER_BYTES + longest if longest < IN_BAND else None


class _NotPlainError(Exception):
    """Ends a pickle that contains something that is not plain."""


class _NumbersPickler(pickle.Pickler):
    """Pickles a list of numbers. Any other object raises, or enters the memo: containers and strings do."""

    def reducer_override(self, value: object) -> Any:
        raise _NotPlainError


def _dump_numbers(values: Sequence[Any]) -> bytes | None:
    """Pickle a list or tuple of numbers; None if it contains anything else.

    It takes as long as a pickle, which is less than it takes to look at all types.
    """
    if type(values) not in (list, tuple) or type(values[0]) not in _NUMBERS:
        return None
    output = _Chunks()
    pickler = _NumbersPickler(output, 5)
    try:
        pickler.dump(values)
    except (_NotPlainError, MemoryError, RecursionError, pickle.PicklingError):
        return None
    # The sequence itself is in the memo.
    return b"".join(output.chunks) if len(pickler.memo.copy()) == 1 else None


class _Chunks:
    """A file of what a pickler writes: of one piece, unless it is large."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append


def dump_if_plain(values: Sequence[Any]) -> bytes | None:
    """Pickle values together if all are plain, as `dump_plain` does; None if they are not."""
    if len(values) >= MANY:
        if (data := _dump_numbers(values)) is not None:
            return data
    elif _NUMBERS.issuperset(map(type, values)):
        return dump_plain(values)
    return None if plain_nbytes(values) is None else dump_plain(values)


def _numpy_numbers() -> frozenset[type]:
    numpy = sys.modules.get("numpy")
    return _numbers_of(numpy) if numpy else frozenset()


@functools.cache
def _numbers_of(numpy: Any) -> frozenset[type]:
    return frozenset(getattr(numpy, name) for name in _NUMPY_NUMBERS)


dump_plain: Callable[[Iterable[object]], bytes] = functools.partial(pickle.dumps, protocol=5)
"""Pickles plain values, or columns of them, together."""

load_plain: Callable[[bytes], Any] = pickle.loads
"""Unpickles the output of `dump_plain`."""
