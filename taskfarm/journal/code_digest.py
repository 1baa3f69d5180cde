"""A digest of a function's code that is the same in the next run of the program.

It covers what the function does: its bytecode and constants, and the user code and plain values that it
refers to by name. If a value has no reproducible content, only the name of its type counts. A change that
is missed this way can be handled with ``key=``, whereas a digest that differs in every run would make the
journal useless. In the user's modules, only the attributes that are looked up count. The standard library
and installed packages count by name only.
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
from taskfarm.protocol.task_base import unwrap_task

_SCALARS: frozenset[type] = frozenset({int, float, complex, bool, str, bytes, NoneType, EllipsisType})
_SEQUENCES: frozenset[type] = frozenset({list, tuple})
_SETS: frozenset[type] = frozenset({set, frozenset})

_MAX_DEPTH = 100
"""Depth of nested containers and objects that are examined."""

_HAS_DOCSTRING = 0x4000000
"""The flag of code objects whose first constant is the docstring; new in Python 3.13 or 3.14."""

_IGNORED_MEMBERS = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)
"""Class members that do not change what the class does, or that differ from run to run."""


def digest(function: Any) -> bytes:
    """16 bytes that change only if the function's code, or a plain value that it uses, changes."""
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
    """Computes one digest by walking through a value and everything that it refers to.

    Where a value contains itself, its label stands for it. Visited values are kept alive, because they are
    identified by their ids.
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
        if id(value) in self._open or len(self._open) > _MAX_DEPTH:
            return _hash("again", _label(value))
        self._open.add(id(value))
        try:
            result = self._digest(value)
        except Exception:
            # An object may raise anything when it is examined; the job must not fail.
            result = _hash("object", _label(kind))
        finally:
            self._open.discard(id(value))
        self._done[id(value)] = (value, result)
        return result

    def _digest(self, value: Any) -> bytes:
        kind = type(value)
        builtin = self._digest_builtin(kind, value)
        if builtin is not None:
            return builtin
        if isinstance(value, ModuleType):
            return _hash("module", _text(value.__name__))
        if isinstance(value, Enum):
            return _hash("enum", _label(kind), _text(value.name))
        if isinstance(value, list | tuple):
            return _hash("sequence", _label(kind), *map(self.of, list(value)))
        if isinstance(value, dict):
            return self._mapping(f"mapping {_text(kind.__qualname__)!r}", value)
        array = _as_array(value)
        if array is not None:
            return self._array(*array)
        if callable(value):
            return self._callable(value)
        return _hash("object", _label(kind))

    def _digest_builtin(self, kind: type, value: Any) -> bytes | None:
        """The digest of a value whose type is exactly a builtin one; None for other values."""
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
            receiver = value.__self__
            bound = b""
            if receiver is not None and not isinstance(receiver, ModuleType):
                bound = self._instance(receiver)
            return _hash("builtin", _label(value), bound)
        inner = unwrap_task(value)
        if inner is value:
            inner = getattr(value, "__wrapped__", None)
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
            self._mapping("globals", {name: value for name, value in used.items() if value is not MISSING}),
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
        members = {name: member for name, member in vars(cls).items() if name not in _IGNORED_MEMBERS}
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


def _as_array(value: Any) -> tuple[Any, tuple[int, ...], Any] | None:
    """The dtype, shape and array of a NumPy array or scalar; None for any other value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    return value.dtype, value.shape, numpy.asarray(value)


def _unwrapped(member: Any) -> Any:
    """The functions in a descriptor of a class; any other member unchanged."""
    if isinstance(member, staticmethod | classmethod):
        return (type(member).__name__, member.__func__)
    if isinstance(member, property):
        return ("property", member.fget, member.fset, member.fdel)
    if isinstance(member, functools.cached_property):
        return ("cached_property", member.func)
    return member


def _label(value: Any) -> bytes:
    """A name for a value, also used to sort values; the same in every run."""
    kind = type(value)
    if kind in _SCALARS:
        return _text(f"{kind.__name__} {value!r}")
    if kind in _SEQUENCES:
        return _text(kind.__name__) + b" " + b",".join(map(_label, value[:8]))
    named = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else kind
    return _text(f"{named.__module__}.{named.__qualname__}")


@functools.lru_cache(maxsize=1024)
def _code(code: CodeType) -> bytes:
    """The digest of a code object, without file and line numbers; cached, because code is immutable."""
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
    """The digest of a constant in a code object; only that of nested code is cached."""
    return _code(constant) if isinstance(constant, CodeType) else _Walk().of(constant)


def _names(names: Iterable[str]) -> bytes:
    return "\0".join(names).encode("utf-8", "surrogatepass")


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is the docstring."""
    if not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # The first constant of a function is its docstring, but not that of a lambda, comprehension or class.
    return not code.co_name.startswith("<") and bool(code.co_flags & 1)
