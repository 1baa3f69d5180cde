"""A digest of a function's code that the next run of the program finds again.

It covers what the function would do: its bytecode and constants, and, as far as it refers to them by
name, user code and plain values. Where a value cannot be told reliably, its type's name stands for it:
missing a change can be mended with ``key=``, while a digest that never repeats would make a journal
useless. Modules of the user's are followed to what is looked up in them; the standard library and
installed packages count by name only.
"""

import functools
import marshal
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import blake2b
from types import (
    BuiltinFunctionType,
    CodeType,
    EllipsisType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

from taskfarm.journal.code_references import MISSING, global_paths, is_library, resolve

_SCALARS: frozenset[type] = frozenset({int, float, complex, bool, str, bytes, NoneType, EllipsisType})
_SEQUENCES: frozenset[type] = frozenset({list, tuple})
_SETS: frozenset[type] = frozenset({set, frozenset})

_DEPTH = 100
"""Containers and objects within each other that are looked into."""

_HAS_DOCSTRING = 0x4000000
"""The flag of code whose first constant is its docstring, since Python 3.13 or 3.14."""

_NOT_OF_A_CLASS = frozenset(
    {
        *("__doc__", "__module__", "__qualname__", "__dict__", "__weakref__", "__annotations__"),
        *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl", "__annotate__"),
        *("__annotations_cache__", "__annotate_func__", "__parameters__", "__orig_bases__"),
    }
)
"""What stands in a class without changing what it does, or differs from run to run."""


def digest(function: Any) -> bytes:
    """16 bytes that stay the same until the function's code, or a plain value that it uses, changes."""
    return _Walk().of(function)


def _hash(tag: str, *parts: bytes) -> bytes:
    state = blake2b(tag.encode(), digest_size=16)
    for part in parts:
        state.update(b"%d:" % len(part))
        state.update(part)
    return state.digest()


def _text(text: object) -> bytes:
    return str(text).encode("utf-8", "surrogatepass")


class _Walk:
    """One digest: what has been seen, and what is being looked at.

    A value that refers to itself stands for itself by its label. All that was seen is kept alive, for
    its id names it.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[object, bytes]] = {}
        self._open: set[int] = set()

    def of(self, value: Any) -> bytes:
        """The digest of any value."""
        kind = type(value)
        if kind in _SCALARS:
            return _hash(kind.__name__, marshal.dumps(value, 2))
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open or len(self._open) > _DEPTH:
            return _hash("again", _label(value))
        self._open.add(id(value))
        try:
            resolve = self._look(value)
        except Exception:
            # Objects may refuse to be looked at in any way; the job goes on.
            resolve = _hash("object", _label(kind))
        finally:
            self._open.discard(id(value))
        self._done[id(value)] = (value, resolve)
        return resolve

    def _look(self, value: Any) -> bytes:
        kind = type(value)
        found = self._look_at_builtin(kind, value)
        if found is not None:
            return found
        if isinstance(value, ModuleType):
            return _hash("module", _text(value.__name__))
        if isinstance(value, Enum):
            return _hash("enum", _label(kind), _text(value.name))
        if isinstance(value, list | tuple):
            return _hash("sequence", _label(kind), *map(self.of, list(value)))
        if isinstance(value, dict):
            return self._mapping(f"mapping {_text(kind.__qualname__)!r}", value)
        numbers = _numbers(value)
        if numbers is not None:
            return self._array(*numbers)
        return self._callable(value) if callable(value) else _hash("object", _label(kind))

    def _look_at_builtin(self, kind: type, value: Any) -> bytes | None:
        """The digest of a value of exactly a builtin type; None for others."""
        if kind in _SEQUENCES:
            return _hash(kind.__name__, *map(self.of, list(value)))
        if kind in _SETS:
            return _hash("set", *sorted(map(self.of, sorted(value, key=_label))))
        if kind is dict:
            return self._mapping("dict", value)
        if kind is CodeType:
            return _code(value)
        if kind in (range, slice):
            return _hash(kind.__name__, *map(self.of, (value.start, value.stop, value.step)))
        return None

    def _callable(self, value: Any) -> bytes:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, MethodType):
            return _hash("method", self.of(value.__func__), self._instance(value.__self__))
        if isinstance(value, functools.partial):
            return _hash("partial", *map(self.of, (value.func, value.args, value.keywords)))
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            bound = b"" if owner is None or isinstance(owner, ModuleType) else self._instance(owner)
            return _hash("builtin", _label(value), bound)
        inner = getattr(value, "__taskfarm_function__", getattr(value, "__wrapped__", None))
        if inner is not None:
            return self.of(inner)
        return _hash("callable", self._instance(value))

    def _function(self, function: FunctionType) -> bytes:
        namespace = function.__globals__
        if is_library(namespace.get("__name__"), namespace.get("__file__")):
            wrapped = getattr(function, "__wrapped__", None)
            return _hash("library", _label(function), b"" if wrapped is None else self.of(wrapped))
        code = function.__code__
        used = {".".join(path): resolve(namespace, path) for path in global_paths(code)}
        return _hash(
            "function",
            _code(code),
            self.of(function.__defaults__),
            self._mapping("keywords", function.__kwdefaults__ or {}),
            self._mapping("globals", {name: v for name, v in used.items() if v is not MISSING}),
            *(self._cell(cell) for cell in function.__closure__ or ()),
        )

    def _cell(self, cell: Any) -> bytes:
        try:
            return self.of(cell.cell_contents)
        except ValueError:
            return _hash("empty")

    def _class(self, cls: type) -> bytes:
        module = sys.modules.get(cls.__module__)
        if module is not None and is_library(cls.__module__, getattr(module, "__file__", None)):
            return _hash("library", _label(cls))
        members = {k: v for k, v in vars(cls).items() if k not in _NOT_OF_A_CLASS}
        inner = {name: _unwrapped(member) for name, member in members.items()}
        return _hash(
            "class", _text(cls.__qualname__), self._mapping("members", inner), *map(self.of, cls.__bases__)
        )

    def _instance(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self.of(value)
        kind = type(value)
        if kind in _SCALARS | _SEQUENCES | _SETS | {dict}:
            return self.of(value)
        return _hash("instance", self.of(kind), self._mapping("state", getattr(value, "__dict__", {})))

    def _mapping(self, tag: str, mapping: Mapping[Any, Any]) -> bytes:
        items = sorted(list(mapping.items()), key=lambda item: _label(item[0]))
        return _hash(tag, *sorted(_hash("item", self.of(key), self.of(value)) for key, value in items))

    def _array(self, dtype: Any, shape: tuple[int, ...], array: Any) -> bytes:
        if dtype.hasobject:
            return _hash("objects", self.of(shape), *map(self.of, array.ravel().tolist()))
        return _hash("array", _text(dtype.descr), self.of(shape), array.tobytes())


def _numbers(value: Any) -> tuple[Any, tuple[int, ...], Any] | None:
    """The dtype, shape and array of a numpy array or scalar; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    return value.dtype, value.shape, numpy.asarray(value)


def _unwrapped(member: Any) -> Any:
    """The functions within a descriptor of a class."""
    if isinstance(member, staticmethod | classmethod):
        return (type(member).__name__, member.__func__)
    if isinstance(member, property):
        return ("property", member.fget, member.fset, member.fdel)
    if isinstance(member, functools.cached_property):
        return ("cached_property", member.func)
    return member


def _label(value: Any) -> bytes:
    """What to call and sort a value by: the same in every run."""
    kind = type(value)
    if kind in _SCALARS:
        return _text(f"{kind.__name__} {value!r}")
    if kind in _SEQUENCES:
        return _text(kind.__name__) + b" " + b",".join(map(_label, value[:8]))
    named = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else kind
    return _text(f"{named.__module__}.{named.__qualname__}")


@functools.lru_cache(maxsize=1024)
def _code(code: CodeType) -> bytes:
    """The digest of code itself, without the places it came from; code never changes."""
    constants = list(code.co_consts)
    if _has_docstring(code):
        constants[0] = None
    return _hash(
        "code",
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        marshal.dumps((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount), 2),
        _text(code.co_flags & ~_HAS_DOCSTRING),
        *map(_names, (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)),
        *map(_constant, constants),
    )


def _constant(constant: Any) -> bytes:
    """The digest of a constant: of those that lie in code, only code has a digest that is kept."""
    return _code(constant) if isinstance(constant, CodeType) else _Walk().of(constant)


def _names(names: Iterable[str]) -> bytes:
    return "\0".join(names).encode("utf-8", "surrogatepass")


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is only the docstring."""
    if not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # A function's first constant is kept for its docstring; lambdas, comprehensions and classes differ.
    return not code.co_name.startswith("<") and bool(code.co_flags & 1)
