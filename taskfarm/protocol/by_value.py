"""Pickling what the standard pickle cannot: functions and classes of the job, lambdas and closures.

What has a name in ``__main__`` is pickled by that name, and the pickler collects the names. Everything else
that cannot be imported is pickled by value, so that it is the same on the other side: cells stay shared, a
class keeps its slots, and no ``__init_subclass__`` or metaclass is called again.
"""

import abc
import contextvars
import copyreg
import dataclasses
import dis
import enum
import functools
import inspect
import io
import re
import sys
import threading
import typing
import weakref
from collections.abc import Callable, Mapping
from pickle import PickleBuffer
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as implementation

from taskfarm.protocol import sides
from taskfarm.protocol.sides import LOCAL_NAMES, Side, here
from taskfarm.protocol.task_base import is_task

_NAME_OPS = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
_BY_TEXT = frozenset({"eval", "exec", "globals", "__main__", "modules"})
"""A function that uses one of these may look up a global whose name it has as text."""

_LOADERS = frozenset({"load", "loads", "Unpickler", "read_pickle", "shelve"})
"""A function that uses one of these may meet any class of the job."""

_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]
_OWN_CREATORS = frozenset({type, abc.ABCMeta, enum.EnumMeta, type(typing.Protocol)})
_SENTINELS = {type(dataclasses.MISSING): "MISSING", type(dataclasses.KW_ONLY): "KW_ONLY"}
_LRU_CACHE = type(functools.lru_cache(print))
_TOLD_BY_IDENTITY = frozenset(
    {object, typing.NewType, typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple}
)
"""Types of globals whose copies would mean something else."""


class Names(typing.NamedTuple):
    """The globals to which code, and code nested in it, refers.

    Attributes
    ----------
    uses : frozenset of str
        Names that it looks up.
    may_use : frozenset of str
        Names that it may look up by their text.
    may_load : bool
        Whether it may load pickles, and so meet any class.
    """

    uses: frozenset[str]
    may_use: frozenset[str]
    may_load: bool


_names_cache: "weakref.WeakKeyDictionary[CodeType, Names]" = weakref.WeakKeyDictionary()


def global_names(code: CodeType) -> Names:
    """The names of globals to which code refers."""
    found = _names_cache.get(code)
    if found is None:
        uses = {step.argval for step in dis.get_instructions(code) if step.opname in _NAME_OPS}
        may_use: set[str] = set()
        if _BY_TEXT.intersection(code.co_names):
            texts = [text for text in code.co_consts if isinstance(text, str)]
            may_use.update(code.co_names, *map(_IDENTIFIER.findall, texts))
        may_load = bool(_LOADERS.intersection(code.co_names))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                inner = global_names(constant)
                uses |= inner.uses
                may_use |= inner.may_use
                may_load = may_load or inner.may_load
        found = _names_cache[code] = Names(frozenset(uses), frozenset(may_use), may_load)
    return found


class Pickled(typing.NamedTuple):
    """A pickle, and what it refers to in ``__main__``.

    Attributes
    ----------
    data : bytes
        The pickle.
    refers : set of str
        Names that must exist when it is loaded.
    uses : set of str
        Names that its functions look up when they run.
    may_use : set of str
        Names that they may look up, as far as their text tells.
    contains : set of str
        Names of objects of the job's file that it contains as copies.
    """

    data: bytes
    refers: set[str]
    uses: set[str]
    may_use: set[str]
    contains: set[str]


def dumps(
    obj: object,
    buffer_callback: Callable[[PickleBuffer], bool],
    roots: Mapping[str, object] | None = None,
    reduce: Callable[[Any], Any] | None = None,
) -> Pickled:
    """Pickle an object with protocol 5.

    Parameters
    ----------
    obj : object
        The object.
    buffer_callback : callable
        As in `pickle.dumps`.
    roots : mapping of str to object, optional
        The globals that `obj` defines. They are pickled by value, and every other global by its name.
    reduce : callable, optional
        A ``reducer_override`` for what is neither a class nor a function.

    Raises
    ------
    Exception
        Whatever the object's own pickling raises.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, buffer_callback, roots, reduce)
    pickler.dump(obj)
    contains = pickler.contained() if roots else set()
    return Pickled(file.getvalue(), pickler.refers, pickler.uses, pickler.may_use, contains)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles by name in ``__main__`` where it can; see `dumps`."""

    def __init__(
        self,
        file: io.BytesIO,
        buffer_callback: Callable[[PickleBuffer], bool],
        roots: Mapping[str, object] | None,
        reduce: Callable[[Any], Any] | None,
    ) -> None:
        self.dispatch_table = _IN_DEFINITIONS if roots else _IN_CALLS
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._reduce = reduce
        side = here()
        self._side: Side = side
        self._main = side.module
        self._globals = vars(self._main)
        self._roots = roots or {}
        self._root_ids = {
            id(value) for name, value in self._roots.items() if self._canonical(value) == name
        }
        self._members: set[int] = set()
        self.refers: set[str] = set()
        self.uses: set[str] = set()
        self.may_use: set[str] = set()

    @functools.cached_property
    def _name_of_id(self) -> dict[int, str]:
        """The names of the objects of ``__main__`` that are told by identity."""
        return names_by_id(self._globals)

    def reducer_override(self, obj: Any) -> Any:
        """How to pickle anything but the builtin containers and scalars."""
        kind = type(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is FunctionType:
            return self._reduce_function(obj)
        if kind is ModuleType and obj is self._main:
            return sides.main_module, ()
        if kind is _LRU_CACHE or is_task(obj):
            return self._reduce_wrapper(obj)
        if kind in _TOLD_BY_IDENTITY or (self._roots and _is_distinct(kind)):
            path = self._path_by_identity(obj)
            if path is not None:
                return self._refer(path)
        return self._reduce_instance(kind, obj)

    def _reduce_instance(self, kind: type, obj: Any) -> Any:
        if issubclass(kind, enum.Enum) and (id(kind) in self._root_ids or id(kind) in self._members):
            return self._reduce_member(obj)
        if self._roots and kind.__module__ == "ctypes" and "_FuncPtr" in getattr(obj, "__dict__", ()):
            return _reduce_library(obj)
        if kind in _SENTINELS:
            return getattr, (dataclasses, _SENTINELS[kind])
        if self._reduce is not None and (reduced := self._reduce(obj)) is not NotImplemented:
            return reduced
        if id(obj) in self._name_of_id and kind not in self.dispatch_table:
            return self._reduce_global(obj)
        return NotImplemented

    def contained(self) -> set[str]:
        """Names of the builtin containers of ``__main__`` that were pickled as parts of something else."""
        containers = (dict, list, set, bytearray)
        shared = {
            id(value): name
            for name, value in self._globals.items()
            if type(value) in containers and name not in LOCAL_NAMES and name not in self._roots
        }
        if not shared:
            return set()
        memo = self.memo.copy()
        return {name for key, name in shared.items() if key in memo}

    # Names

    def _canonical(self, value: Any) -> str | None:
        """The name under which a global is pickled; under its other names it is pickled by this name."""
        path = None
        if type(value) is FunctionType or issubclass(type(value), type):
            path = own_path(self._globals, value)
        return path or self._name_of_id.get(id(value))

    def _refer(self, path: str) -> tuple[Any, ...]:
        self.refers.add(path.partition(".")[0])
        return sides.of_main, (path,)

    def _is_common(self, path: str) -> bool:
        """Whether the other side has what this name refers to, or will have it by then."""
        first = path.partition(".")[0]
        if first in self._roots:
            return False
        return self._side.is_job or first in self._side.defined

    def _path_by_identity(self, obj: object) -> str | None:
        if id(obj) in self._root_ids:
            return None
        name = self._name_of_id.get(id(obj))
        return name if name is not None and self._is_common(name) else None

    def _path(self, obj: Any) -> str | None:
        """The name by which the other side finds a function or class; None if there is none."""
        if id(obj) in self._root_ids:
            return None
        path = own_path(self._globals, obj)
        if path is not None:
            return path if self._is_common(path) else None
        return None if self._importable(obj) else self._path_by_identity(obj)

    @staticmethod
    def _importable(obj: Any) -> bool:
        found = implementation._lookup_module_and_qualname(obj)
        return found is not None and not implementation._is_registered_pickle_by_value(found[0])

    # Functions

    def _reduce_function(self, function: FunctionType) -> Any:
        path = self._path(function)
        if path is not None:
            return self._refer(path)
        if self._importable(function):
            return NotImplemented
        code, cells = function.__code__, function.__closure__ or ()
        own: dict[str, Any] | None = None
        base: dict[str, Any] | None = None
        names, may_use, may_load = global_names(code)
        found = {name: function.__globals__[name] for name in names if name in function.__globals__}
        if function.__globals__ is self._globals:
            self.uses |= names
            self.may_use |= may_use
            if may_load:
                self.may_use |= _classes(self._globals)
        else:
            own = found
            base = self.globals_ref.setdefault(id(function.__globals__), {})
            if not base:
                for name in ("__package__", "__name__", "__path__", "__file__"):
                    if name in function.__globals__:
                        base[name] = function.__globals__[name]
        contents = [(cell, _content(cell)) for cell in cells]
        filled = [(cell, content) for cell, content in contents if content is not _EMPTY]
        slots = {
            "__qualname__": function.__qualname__,
            "__annotations__": function.__annotations__,
            "__kwdefaults__": function.__kwdefaults__,
            "__defaults__": function.__defaults__,
            "__module__": function.__module__,
            "__doc__": function.__doc__,
        }
        values = (*found.values(), *(content for _, content in filled))
        modules = implementation._find_imported_submodules(code, values)
        state = (dict(vars(function)), slots, own, filled, modules)
        arguments = (code, base, function.__name__, function.__closure__)
        return sides.make_function, arguments, state, None, None, sides.fill_function

    def _reduce_wrapper(self, wrapper: Any) -> Any:
        """How to pickle a task, or a function with a cache."""
        if self._importable(wrapper):
            return NotImplemented
        path = self._path_by_identity(wrapper)
        if path is not None:
            return self._refer(path)
        if not is_task(wrapper):
            own = ("__wrapped__", "cache_parameters")
            state = {name: value for name, value in vars(wrapper).items() if name not in own}
            return sides.make_cached, (wrapper.cache_parameters(), wrapper.__wrapped__), state
        # Callables are used only on rank 0, and may be unpicklable; a task that submits it needs the rest.
        options, policy = (
            {option: value for option, value in given.items() if not callable(value)}
            for given in (wrapper._options, wrapper.__taskfarm_policy__)
        )
        state = {**vars(wrapper), "_options": options, "__taskfarm_policy__": policy}
        return copyreg.__newobj__, (type(wrapper),), state  # type: ignore[attr-defined]

    def _reduce_global(self, value: Any) -> Any:
        """How to pickle an object that has a name in the job's file, and may pickle itself by that name."""
        kind: Any = type(value)
        if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
            return NotImplemented
        reduced = value.__reduce_ex__(5)
        if not isinstance(reduced, str) or implementation._whichmodule(value, reduced) not in _OWN_MODULES:
            return reduced
        path = self._path_by_identity(value)
        if path is not None:
            return self._refer(path)
        return copyreg.__newobj__, (kind,), dict(getattr(value, "__dict__", {})) or None  # type: ignore[attr-defined]

    # Classes

    def _reduce_class(self, cls: type) -> Any:
        path = self._path(cls)
        if path is not None:
            return self._refer(path)
        if self._importable(cls):
            return NotImplemented
        if type(cls) is type and cls.__module__ == "builtins":
            return implementation._class_reduce(cls)
        other = _other_name(cls)
        if other is not None:
            return getattr, other
        if type(cls) is type and cls.__module__ == "_ctypes":
            return _reduce_type_of_ctypes(cls)
        kinds = inspect.getmro(type(cls))
        creator = next(kind for kind in kinds if kind.__module__ == "_ctypes" or self._importable(kind))
        if creator not in _OWN_CREATORS and creator.__module__ != "_ctypes":
            make, arguments, *rest = implementation._dynamic_class_reduce(cls)
            if self._roots:
                # Where a task runs in the job's own process, the job's class must stay as it is.
                arguments = (*arguments[:4], None, *arguments[5:])
            return make, arguments, *rest
        if issubclass(cls, enum.Enum):
            self._members.add(id(cls))
            creator = type
        beginning, content = _split_members(cls)
        registered: list[type] = []
        if isinstance(cls, abc.ABCMeta):
            (references, *_) = abc._get_dump(cls)  # type: ignore[attr-defined]
            registered = [found for reference in references if (found := reference()) is not None]
        arguments = (creator, type(cls), cls.__name__, cls.__bases__, beginning, self._side.token_of(cls))
        return sides.make_class, arguments, (content, registered), None, None, sides.fill_class

    def _reduce_member(self, member: Any) -> Any:
        reduced = object.__reduce_ex__(member, 2)
        base = type(member)._member_type_
        return sides.make_member, (base, type(member), reduced[1][1:]), dict(vars(member))


def own_path(namespace: Mapping[str, Any], value: Any) -> str | None:
    """The name that a function or class of the job's file has by itself, if it is found under it."""
    qualname: Any = value.__qualname__
    if value.__module__ != "__main__" or not isinstance(qualname, str):
        return None
    first, *others = qualname.split(".")
    found = namespace.get(first)
    for name in others:
        found = getattr(found, name, None)
    return qualname if found is value else None


def names_by_id(namespace: Mapping[str, Any]) -> dict[int, str]:
    """The first name of each object of the job's file, by its id."""
    names: dict[int, str] = {}
    for name, value in list(namespace.items()):
        if name not in LOCAL_NAMES:
            names.setdefault(id(value), name)
    return names


_OWN_MODULES = (None, "__main__")
_EMPTY = object()


_MADE_BY_PYTHON = (
    *("_abc_impl", "__annotate_func__", "__qualname__", "__module__", "__firstlineno__"),
    "__slotnames__",  # copyreg remembers it when it pickles the first instance
)
_OF_TYPE = ("__class__", "__name__", "__bases__", "__base__", "__mro__")
"""Members that cannot be set later: setting them would change the class as an object."""
_OF_CTYPES = ("_fields_", "_pack_", "_anonymous_", "_align_", "_length_", "_type_", "_flags_")
"""Members from which ctypes computes the layout of a structure."""


def _split_members(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a class must have from the beginning, and the rest of its members."""
    beginning: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    content: dict[str, Any] = {}
    slots = []
    layout: tuple[str, ...] = _OF_CTYPES if type(cls).__module__ == "_ctypes" else ()
    for name, value in vars(cls).items():
        kind = type(value)
        if layout and kind.__module__ == "_ctypes" and kind.__name__ == "CField":
            continue  # it is made for each field
        if kind is MemberDescriptorType and value.__objclass__ is cls:
            slots.append(name)
        elif name not in _MADE_BY_PYTHON and not (
            kind is GetSetDescriptorType and value.__objclass__ is cls
        ):
            (beginning if name in _OF_TYPE or name in layout else content)[name] = value
    if content.get("__annotations__") == {}:
        del content["__annotations__"]  # it is made when somebody asks for it
    if "__slots__" in content:
        given = content["__slots__"]
        beginning["__slots__"] = given if isinstance(given, str | tuple | list | dict) else tuple(slots)
    return beginning, content


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _classes(namespace: Mapping[str, Any]) -> set[str]:
    """The names of the classes that the job's file defines."""
    return {
        name
        for name, value in list(namespace.items())
        if issubclass(type(value), type) and value.__module__ == "__main__"
    }


def _is_distinct(kind: type) -> bool:
    """Whether objects of a type are told by identity in definitions: not what pickle finds by itself."""
    return kind not in (ModuleType, BuiltinFunctionType, MethodType, CellType, CodeType) and not issubclass(
        kind, enum.Enum
    )


def _other_name(cls: type) -> tuple[ModuleType, str] | None:
    """The module that has a class under another name than its own, and that name."""
    module = sys.modules.get(cls.__module__) if cls.__module__ != "__main__" else None
    if module is None or implementation._is_registered_pickle_by_value(module):
        return None
    names = [name for name, value in list(vars(module).items()) if value is cls]
    return (module, names[0]) if names else None


def _reduce_type_of_ctypes(cls: type) -> tuple[Any, ...]:
    """The metaclasses of ctypes have no name that could be imported."""
    import ctypes

    for example in (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes.c_int, ctypes._Pointer):
        if type(example) is cls:
            return type, (example,)
    raise TypeError(f"cannot pickle {cls!r}")


def _reduce_cell(cell: CellType) -> tuple[Any, ...]:
    return sides.make_cell, ()


def _reduce_code_with_file(code: CodeType) -> tuple[Any, ...]:
    # cloudpickle 3.1.3 drops the file name of code, which tracebacks need.
    return sides.with_file, (code.co_filename, *_reduce_code(code))


def _reduce_new_type(value: Any) -> tuple[Any, ...]:
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def _reduce_parameters(value: Any) -> tuple[Any, ...]:
    return type(value), (value.__name__,)


def _reduce_library(library: Any) -> tuple[Any, ...]:
    used = {name: value for name, value in vars(library).items() if type(value) is library._FuncPtr}
    functions = {name: (value.restype, value.argtypes) for name, value in used.items()}
    return sides.make_library, (type(library), library._name, functions)


def _reduce_variable(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    try:
        default = contextvars.Context().run(variable.get)
    except LookupError:
        return contextvars.ContextVar, (variable.name,)
    return functools.partial(contextvars.ContextVar, variable.name, default=default), ()


def _reduce_weak(weak: Any) -> tuple[Any, ...]:
    return sides.make_weak, (type(weak), list(weak.items()))


def _reduce_cached_property(value: Any) -> tuple[Any, ...]:
    state = {name: item for name, item in vars(value).items() if name != "lock"}
    return type(value), (value.func,), state


def _new(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: (kind, ())


_IN_CALLS = cloudpickle.Pickler.dispatch_table.new_child(
    {
        CodeType: _reduce_code_with_file,
        CellType: _reduce_cell,
        weakref.WeakKeyDictionary: _reduce_weak,
        weakref.WeakValueDictionary: _reduce_weak,
        functools.cached_property: _reduce_cached_property,
    }
)
_IN_DEFINITIONS = _IN_CALLS.new_child(
    {
        # A worker has its own, as if it had imported the job's file.
        type(threading.Lock()): _new(threading.Lock),
        type(threading.RLock()): _new(threading.RLock),
        threading.local: _new(threading.local),
        contextvars.ContextVar: _reduce_variable,
        typing.NewType: _reduce_new_type,
        typing.ParamSpec: _reduce_parameters,
        typing.TypeVarTuple: _reduce_parameters,
    }
)
