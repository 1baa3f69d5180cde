"""Digests of values that are the same in every process, whatever its hash seed and its addresses.

A value is told by what its pickle would hold, so the digest covers what a worker gets. It is computed from
the value and not from its pickle, whose bytes depend on the order of sets, on which equal objects are the
same object, and on the layout of arrays. A value that cannot be pickled is told by its attributes, if all
of it is in its attributes. Any other value gets a digest that no other process finds, because it cannot be
told to be equal.
"""

import copyreg
import functools
import marshal
import os
import pickle
import secrets
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from enum import Enum
from hashlib import blake2b
from itertools import chain
from types import BuiltinFunctionType, CellType, EllipsisType, FunctionType, MappingProxyType, NoneType
from typing import Any, TypeAlias

from taskfarm.job.futures import Future
from taskfarm.journal.libraries import code_of, is_library, origin
from taskfarm.protocol.shared import AsValue, Recipe, Shared

SCALARS: frozenset[type] = frozenset({int, float, complex, bool, str, bytes, NoneType, EllipsisType})
_PLAIN_CONTAINERS: frozenset[type] = frozenset({list, tuple, dict})

_PLAIN_DEPTH = 8
"""Containers of plain values are hashed as a whole if they are nested no deeper than this."""

_PLAIN_ITEMS = 1 << 24
"""The same for the number of items inside of inner containers, where a list that is shared counts often."""

_OF_THIS_PROCESS = secrets.token_bytes(16)

_WITHOUT_CONTENT: frozenset[type] = frozenset(
    {type(threading.Lock()), type(threading.RLock()), threading.local, object}
)
"""Types of objects that do not change what a function computes."""

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))

_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")

Steps: TypeAlias = Generator[Any, bytes, bytes]
"""Computes a digest: yields each value whose digest it needs, gets that, and returns its own."""


def combine(tag: str, *parts: bytes) -> bytes:
    """A digest of digests and other bytes, 16 bytes."""
    state = blake2b(tag.encode(), digest_size=16)
    for part in parts:
        state.update(b"%d:" % len(part))
        state.update(part)
    return state.digest()


def encoded(text: object) -> bytes:
    """A text as bytes."""
    return str(text).encode("utf-8", "surrogatepass")


def label(value: Any) -> bytes:
    """A name for a value, also used to sort values; the same in every run."""
    kind = type(value)
    if kind in SCALARS:
        return encoded(f"{kind.__name__} {value!r}")
    if kind in (list, tuple):
        return encoded(kind.__name__) + b" " + b",".join(map(label, value[:8]))
    named = value if issubclass(kind, type | FunctionType | BuiltinFunctionType) else kind
    return encoded(f"{named.__module__}.{named.__qualname__}")


def _type_name(kind: type) -> str:
    """The name of a type, whatever its metaclass does."""
    try:
        return f"{kind.__module__}.{kind.__qualname__}"
    except (Exception, SystemExit):
        return str(type.__dict__["__name__"].__get__(kind))


def plain_bytes(value: Any) -> bytes | None:
    """A list, tuple or dict of plain values, also nested, as bytes; None for any other value.

    This is as quick as pickle, and equal values have equal bytes.
    """
    level: Any = (value,)
    for depth in range(_PLAIN_DEPTH):
        kinds = set(map(type, level))
        if kinds <= SCALARS:
            return marshal.dumps(value, 2)
        if not kinds - SCALARS <= _PLAIN_CONTAINERS:
            return None
        nested = [item for item in level if type(item) in _PLAIN_CONTAINERS]
        if depth and sum(map(len, nested)) > _PLAIN_ITEMS:
            return None
        level = list(chain.from_iterable(chain(v, v.values()) if type(v) is dict else v for v in nested))
    return None


class ValueWalk:
    """Computes digests by walking through a value and everything in it, without recursion.

    Where a value contains itself, the distance to it stands for it. Values are kept alive, because they are
    identified by their ids.

    Attributes
    ----------
    unknown : list of str
        Names and types of what cannot be told to be equal in another process.
    """

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._done: dict[int, tuple[object, bytes]] = {}
        self._open: dict[int, int] = {}
        self._names: list[str] = []
        self._plain_kinds: dict[type, bytes] = {}
        self._how: dict[type, Callable[[Any], Steps]] = {}
        self._in_library: dict[type, dict[int, str]] = {}

    def forget(self) -> None:
        """Forget all values, which may change; types stay."""
        self.unknown.clear()
        self._done.clear()
        self._plain_kinds.clear()
        self._in_library.clear()

    def of(self, value: Any) -> bytes:
        """The digest of any value."""
        digest = self._look_up(value)
        if digest is not None:
            return digest
        stack = [self._enter(value)]
        while stack:
            value, steps = stack[-1]
            try:
                inner = next(steps) if digest is None else steps.send(digest)
            except StopIteration as end:
                digest = end.value
            except (Exception, SystemExit):
                # A value may raise anything when it is looked at; the job must not fail.
                digest = self._tell_unknown(value)
            else:
                digest = self._look_up(inner)
                if digest is None:
                    stack.append(self._enter(inner))
                continue
            stack.pop()
            names = self._open.pop(id(value))
            del self._names[names:]
            assert digest is not None
            self._done[id(value)] = (value, digest)
        assert digest is not None
        return digest

    def _enter(self, value: Any) -> tuple[Any, Steps]:
        # The dict keeps its order, so an entry's position is its depth.
        self._open[id(value)] = len(self._names)
        return value, self._steps(value)

    def _steps(self, value: Any) -> Steps:
        kind = type(value)
        how = self._how.get(kind)
        if how is None:
            how = self._how[kind] = self._steps_of(kind)
        return (yield from how(value))

    def _look_up(self, value: Any) -> bytes | None:
        try:
            return self._known(value)
        except (Exception, SystemExit):
            return self._tell_unknown(value)

    def _known(self, value: Any) -> bytes | None:
        """The digest of a value that need not be walked through."""
        kind = type(value)
        if kind in SCALARS:
            return combine(kind.__name__, marshal.dumps(value, 2))
        if (done := self._done.get(id(value))) is not None:
            return done[1]
        if id(value) in self._open:
            depths = list(self._open)
            return combine("again", b"%d" % (len(depths) - depths.index(id(value))))
        if kind in _PLAIN_CONTAINERS:
            plain = plain_bytes(value)
            return None if plain is None else combine("plain", plain)
        if (own := self._plain_kinds.get(kind)) is not None:
            plain = plain_bytes(sorted(_state(value).items()))
            return None if plain is None else combine("plain object", own, plain)
        if (numpy := sys.modules.get("numpy")) is not None:
            if kind in number_types(numpy):
                return combine("number", encoded(kind.__name__), value.tobytes())
            if kind is numpy.ndarray and value.dtype.kind in "?biufcSU" and value.dtype.char not in "gG":
                shape = marshal.dumps(value.shape, 2)
                return combine("array", encoded(value.dtype.str), shape, _bytes_of(value))
        return None

    def _tell_unknown(self, value: Any) -> bytes:
        kind = _type_name(type(value))
        self.unknown.append(f"{'.'.join(self._names)} ({kind})".lstrip())
        return combine("unknown", _OF_THIS_PROCESS, encoded(kind))

    # Values by their type

    def _steps_of(self, kind: type) -> Callable[[Any], Steps]:
        """What computes the digests of the values of a type."""
        if kind in (list, tuple):
            return lambda value: self._sequence(kind.__name__, list(value))
        if kind is dict:
            return lambda value: self._ordered("dict", list(value.items()))
        if issubclass(kind, set | frozenset):
            return self._set
        if issubclass(kind, Enum):
            return self._enum
        if _is_array(kind):
            return self._array
        if kind in _SIMPLE:
            return lambda value: self._sequence(kind.__name__, _SIMPLE[kind](value))
        if _is_c_library(kind):
            return self._c_library
        if kind is Shared:
            return self._shared
        if kind is AsValue:
            return lambda value: self._shared(value.handle)
        return self._object

    def _sequence(self, tag: str, values: Iterable[Any]) -> Steps:
        digests = []
        for value in values:
            digests.append((yield value))
        return combine(tag, *digests)

    def _ordered(self, tag: str, items: Iterable[tuple[Any, Any]]) -> Steps:
        return self._sequence(tag, chain.from_iterable(items))

    def _set(self, value: Any) -> Steps:
        kind = type(value)
        if kind in (set, frozenset) and set(map(type, value)) <= SCALARS:
            return combine("plain set", *sorted(marshal.dumps(member, 2) for member in value))
        digests = []
        for member in sorted(value, key=label):
            digests.append((yield member))
        own = b""
        if kind not in (set, frozenset):
            own = combine("own", (yield kind), (yield from self._attributes("state", _state(value))))
        return combine("set", own, *sorted(digests))

    def _enum(self, value: Any) -> Steps:
        kind = yield type(value)
        state = {name: member for name, member in vars(value).items() if name != "__objclass__"}
        return combine("enum", kind, (yield from self._attributes("state", state)))

    def _attributes(self, tag: str, mapping: Mapping[str, Any]) -> Steps:
        """The digest of values by name, whose order does not count."""
        digests = []
        for name, value in sorted(mapping.items(), key=lambda item: str(item[0])):
            self._names.append(str(name))
            digest = yield value
            self._names.pop()
            digests.append(combine("item", encoded(name), digest))
        return combine(tag, *digests)

    def _array(self, value: Any) -> Steps:
        numpy = sys.modules["numpy"]
        array = numpy.asarray(value)
        dtype = array.dtype
        kind = encoded(type(value).__name__)
        shape = yield array.shape
        if dtype.names is not None:
            # Field by field, because the bytes between fields may hold anything.
            fields = yield from self._ordered("fields", ((name, array[name]) for name in dtype.names))
            return combine("record", kind, encoded(dtype.itemsize), shape, fields)
        if dtype.hasobject or dtype.kind == "T":
            items = yield array.ravel().tolist()
            return combine("objects", kind, encoded(dtype), shape, items)
        if dtype.char in "gG":
            # The upper bytes of an 80-bit number may hold anything.
            halves = yield _halves(array)
            return combine("halves", kind, encoded(dtype.str), shape, halves)
        return combine("other array", kind, encoded(dtype.str), shape, _bytes_of(array))

    # Objects

    def _object(self, value: Any) -> Steps:
        kind = type(value)
        name = self._name_in_library(value)
        if name is not None:
            return combine("library", encoded(name), origin(kind.__module__))
        if kind in _WITHOUT_CONTENT:
            return combine("object", label(value))
        if not self._in_library[kind] and _has_default_reduction(kind):
            own = yield kind
            if id(kind) in self._done:
                self._plain_kinds[kind] = own
            state = _state(value)
            if (plain := plain_bytes(sorted(state.items()))) is not None:
                return combine("plain object", own, plain)
            return combine("object", own, (yield from self._attributes("state", state)))
        try:
            reduced = _reduced(value)
        except (Exception, SystemExit):
            if not _is_told_by_attributes(kind):
                raise
            own = yield kind
            return combine("object", own, (yield from self._attributes("state", _state(value))))
        if isinstance(reduced, str):
            return (yield from self._by_name(value, reduced))
        return (yield from self._reduced(*reduced))

    def _name_in_library(self, value: Any) -> str | None:
        """The name of an object that a library keeps in the module of its type; None for other objects."""
        kind = type(value)
        names = self._in_library.get(kind)
        if names is None:
            names = self._in_library[kind] = {}
            module = sys.modules.get(kind.__module__)
            if module is not None and is_library(module.__name__, getattr(module, "__file__", None)):
                names |= {id(member): f"{module.__name__}.{name}" for name, member in vars(module).items()}
                names |= {id(getattr(sys, name, None)): f"sys.{name}" for name in _STREAMS}
        return names.get(id(value))

    def _by_name(self, value: Any, name: str) -> Steps:
        """An object that pickle would look up by name, which must find it, too."""
        module = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
        if found is not value:
            raise pickle.PicklingError(f"{module}.{name} is another object")
        kind, state = b"", {}
        if _is_told_by_attributes(type(value)):
            kind, state = (yield type(value)), _state(value)
        compiled = module != "__main__" and code_of(module) is None
        attributes = yield from self._attributes("state", state)
        named = encoded(f"{module}.{name}")
        return combine("name", named, kind, attributes, origin(module) if compiled else b"")

    def _shared(self, handle: Any) -> Steps:
        """Shared data by its content, which does not change: as if it was not shared."""
        if handle.digest is None:
            source = handle.source
            handle.digest = yield (source.parts if isinstance(source, Recipe) else handle.value)
        return handle.digest  # type: ignore[no-any-return]

    def _c_library(self, library: Any) -> Steps:
        """A library of ctypes by its name, and by its file if it is named by one."""
        name = library._name
        content = b""
        if isinstance(name, str) and os.path.isfile(name):
            with open(name, "rb") as file:
                content = file.read()
        return combine("C library", encoded(os.path.basename(name or "")), (yield content))

    def _reduced(
        self,
        make: Any,
        arguments: tuple[Any, ...],
        state: Any = None,
        items: Iterable[Any] | None = None,
        pairs: Iterable[tuple[Any, Any]] | None = None,
        set_state: Any = None,
    ) -> Steps:
        """An object as pickle describes it (`object.__reduce__`)."""
        digests = [(yield make), (yield from self._sequence("arguments", arguments))]
        slots: Any = {}
        if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
            state, slots = state
        if type(state) is dict:
            digests.append((yield from self._attributes("state", state)))
        else:
            digests.append((yield state))
        digests.append((yield from self._attributes("slots", slots)))
        digests.append((yield from self._sequence("items", items or ())))
        digests.append((yield from self._ordered("pairs", pairs or ())))
        digests.append((yield set_state))
        return combine("reduced", *digests)


def _is_array(kind: type) -> bool:
    """Whether a type is that of NumPy's arrays or scalars."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and (kind is numpy.ndarray or issubclass(kind, numpy.generic))


def _is_c_library(kind: type) -> bool:
    """Whether a type is that of libraries which ctypes has loaded."""
    ctypes = sys.modules.get("ctypes")
    return ctypes is not None and issubclass(kind, ctypes.CDLL)


def _bytes_of(array: Any) -> Any:
    """The items of an array in C order, without a copy if they are so in memory."""
    if array.size and array.flags.c_contiguous:
        return memoryview(array.reshape(-1).view("u1"))
    return array.tobytes()


def _halves(array: Any) -> tuple[Any, ...]:
    """Two arrays of double precision whose sum is an array of longer numbers."""
    numpy = sys.modules["numpy"]
    with numpy.errstate(all="ignore"):
        numbers = numpy.stack([array.real, array.imag])
        upper = numbers.astype("f8")
        return upper, (numbers - upper).astype("f8")


@functools.lru_cache(maxsize=1)
def number_types(numpy: Any) -> frozenset[type]:
    """The types of NumPy's numbers whose bytes are their value."""
    numbers = (numpy.bool_, numpy.integer, numpy.floating, numpy.complexfloating)
    kinds = {dtype.type for dtype in map(numpy.dtype, "?bBhHiIlLqQefdFD")}
    return frozenset(kind for kind in kinds if issubclass(kind, numbers))


def _has_default_reduction(kind: Any) -> bool:
    """Whether pickle describes the objects of a type by their attributes alone."""
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
        and kind not in copyreg.dispatch_table
        and _is_told_by_attributes(kind)
    )


def _reduced(value: Any) -> Any:
    reduce: Callable[[Any], Any] | None = copyreg.dispatch_table.get(type(value))
    if reduce is not None:
        return reduce(value)
    kind: Any = type(value)
    return kind.__reduce_ex__(value, 4)


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots included."""
    state = dict(getattr(value, "__dict__", {}))
    for name in copyreg._slotnames(type(value)):  # type: ignore[attr-defined]
        try:
            state[name] = object.__getattribute__(value, name)
        except AttributeError:
            continue
    return state


def _is_told_by_attributes(kind: type) -> bool:
    """Whether the objects of a type hold nothing but their attributes, as far as Python can tell."""
    pointer = tuple.__itemsize__
    size = object.__basicsize__ + pointer * len(copyreg._slotnames(kind))  # type: ignore[attr-defined]
    size += pointer * ((kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0))
    return not kind.__itemsize__ and kind.__basicsize__ <= size


def _content_of_cell(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


_SIMPLE: dict[type, Callable[[Any], Iterable[Any]]] = {
    CellType: _content_of_cell,
    MappingProxyType: lambda value: (dict(value),),
    memoryview: lambda value: (value.tobytes(), value.format, value.shape),
    weakref.ref: lambda value: (value(),),
    weakref.KeyedRef: lambda value: (value(),),
    ContextVar: lambda value: (value.name,),
    struct.Struct: lambda value: (value.format,),
    # The result may not be there yet: it is told by the call that makes it.
    Future: lambda value: (value.journal_key or _OF_THIS_PROCESS,),
    **dict.fromkeys(_VIEWS, list),
}
"""The values that make up an object, by its exact type."""
