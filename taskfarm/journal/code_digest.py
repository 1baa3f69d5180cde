"""A digest of a function's code and of all that it uses; the same in the next run of the program.

It covers the function's bytecode and constants, and the user's code and the values that it refers to, found
through its globals, its closure, its defaults and what its body imports. Comments, docstrings, type hints,
line numbers, file names and the order of definitions do not count. Installed packages count as in
`taskfarm.journal.libraries`, and values as in `taskfarm.journal.value_digest`.
"""

import functools
import importlib.util
import marshal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple, TypeAlias

from taskfarm.journal.code_references import (
    HAS_DOCSTRING,
    MISSING,
    Import,
    constants,
    references,
    resolve,
    stored_globals,
)
from taskfarm.journal.libraries import code_of, file_of, is_library, origin
from taskfarm.journal.value_digest import Steps, ValueWalk, combine, encoded, label
from taskfarm.protocol.task_base import TaskBase, is_task, unwrap_task

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

_LRU_CACHE = type(functools.lru_cache(str))

_COMPILERS = frozenset({"jax", "jaxlib", "joblib", "numba"})
"""Packages whose wrappers of functions pickle differently in every run: the function in them counts."""

_DESCRIPTORS = (
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)

_PARTS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    functools.singledispatchmethod: ("func", "dispatcher"),
}
"""Attributes with the functions that a descriptor or wrapper calls, by its exact type."""

_LOADED_AT_FIRST: dict[str, ModuleType | None] = {}
"""Modules that functions import, as they were when this process first looked at them.

In a run with one rank, tasks load modules into this process; the digest must not depend on that.
"""


Name: TypeAlias = tuple[str, str]
"""A global: the name of its module, and its own."""


def names_set_by(function: Any) -> frozenset[Name]:
    """The globals that a function sets, whatever wraps it."""
    while is_task(function) or isinstance(function, functools.partial):
        function = unwrap_task(function) if is_task(function) else function.func
    if not isinstance(function, FunctionType):
        return frozenset()
    module = str(function.__globals__.get("__name__"))
    return frozenset((module, name) for name in stored_globals(function.__code__))


class FunctionDigest(NamedTuple):
    """What identifies a function in a journal.

    Attributes
    ----------
    code : bytes
        16 bytes that change if the function's code, or anything that it uses, changes.
    parts : dict of str to bytes
        The same for each name that the function uses itself.
    unknown : tuple of str
        What the function uses and cannot be told to be equal in another run.
    """

    code: bytes
    parts: Mapping[str, bytes]
    unknown: tuple[str, ...]


def function_digest(function: Any, known: Collection[Name] = ()) -> FunctionDigest:
    """The digest of a function or any other callable.

    Parameters
    ----------
    function : callable
        The function.
    known : collection of Name
        Globals that do not count.
    """
    walk = CodeWalk(known)
    code = walk.of(function)
    return FunctionDigest(code, walk.parts, tuple(dict.fromkeys(walk.unknown)))


def digest(value: Any) -> bytes:
    """16 bytes that change only if a function's code, or anything that it uses, changes; or a value."""
    return CodeWalk().of(value)


class CodeWalk(ValueWalk):
    """Walks through values, and through the code that they consist of.

    Parameters
    ----------
    known : collection of Name
        Globals that do not count.

    Attributes
    ----------
    parts : dict of str to bytes
        The digests of what the first function uses, by name.
    """

    def __init__(self, known: Collection[Name] = ()) -> None:
        super().__init__()
        self._known_globals = known
        self.parts: dict[str, bytes] = {}

    def _steps_of(self, kind: type) -> Callable[[Any], Steps]:
        for kinds, steps in _STEPS:
            if issubclass(kind, kinds):
                return functools.partial(steps, self)
        if kind in _PARTS:
            names = _PARTS[kind]
            return lambda value: self._sequence(kind.__name__, [getattr(value, name) for name in names])
        if kind is _LRU_CACHE or kind.__module__.partition(".")[0] in _COMPILERS:
            return self._wrapper
        return super()._steps_of(kind)

    def _wrapper(self, value: Any) -> Steps:
        inner = getattr(value, "__wrapped__", None)
        if isinstance(inner, FunctionType):
            options = yield getattr(value, "targetoptions", None)  # of numba
            return combine("wrapper", label(type(value)), options, (yield inner))
        return (yield from super()._steps_of(type(value))(value))

    def _task(self, task: Any) -> Steps:
        return (yield unwrap_task(task))

    def _method(self, method: MethodType) -> Steps:
        function = yield method.__func__
        return combine("method", function, (yield from self._attributes("self", {"self": method.__self__})))

    def _builtin(self, function: BuiltinFunctionType) -> Steps:
        receiver, module = function.__self__, function.__module__
        name = combine("builtin", label(function), origin(module) if isinstance(module, str) else b"")
        if receiver is None or isinstance(receiver, ModuleType) or type(receiver).__name__ == "PyCapsule":
            return name
        return combine("bound", name, (yield receiver))

    def _descriptor(self, value: Any) -> Steps:
        return combine("descriptor", label(type(value)), encoded(value.__name__), label(value.__objclass__))
        yield

    def _code(self, code: CodeType) -> Steps:
        return _code(code)
        yield

    # Functions

    def _function(self, function: FunctionType) -> Steps:
        namespace = function.__globals__
        name = namespace.get("__name__")
        if is_library(name, namespace.get("__file__")):
            return (yield from self._library_function(function, str(name)))
        code = function.__code__
        first = not self._names and not self.parts
        used = self._used_by(function)
        digests = [_code(code)]
        for name, value in sorted(used.items()):
            self._names.append(name)
            found = yield value
            self._names.pop()
            digests.append(combine("used", encoded(name), found))
            if first:
                self.parts[name] = found
        for imported in (*references(code).imports, *_imports_by_text(code)):
            digests.append((yield from self._import(imported, function)))
        if first:
            self.parts[""] = digests[0]
        return combine("function", *digests)

    def _used_by(self, function: FunctionType) -> dict[str, Any]:
        """What a function uses, by the name that a reader of its code would give it."""
        code, namespace = function.__code__, function.__globals__
        paths, _, attributes, words = references(code)
        used: dict[str, Any] = {}
        for path in [*paths, *((word,) for word in sorted(words) if word in namespace)]:
            value = resolve(namespace, path)
            if value is MISSING or (namespace.get("__name__"), path[0]) in self._known_globals:
                continue
            used[".".join(path)] = value
            if issubclass(type(value), ModuleType) and not _is_library_module(value):
                members = vars(value)
                used |= {
                    f"{'.'.join(path)}.{name}": members[name]
                    for name in sorted(attributes | words)
                    if name in members
                }
        if function.__defaults__:
            arguments = code.co_varnames[: code.co_argcount]
            pairs = zip(reversed(arguments), reversed(function.__defaults__), strict=False)
            used |= {f"{name}=": value for name, value in pairs}
        used |= {f"{name}=": value for name, value in (function.__kwdefaults__ or {}).items()}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
        used |= {f"{name} (of its closure)": cell for name, cell in cells}
        used |= {f".{name}": value for name, value in vars(function).items()}
        return used

    def _library_function(self, function: FunctionType, module: str) -> Steps:
        """A function of a library by its name, with what users have put into it."""
        digests = [label(function), origin(module)]
        if function.__module__ == "functools" or "__wrapped__" in vars(function):
            registry = vars(function).get("registry")
            if registry is not None:  # of singledispatch, whose closure holds a cache
                digests.append((yield from self._registry(registry)))
                return combine("library", *digests)
        if function.__closure__:
            digests.append((yield from self._sequence("closure", function.__closure__)))
        if "__wrapped__" in vars(function):
            digests.append((yield vars(function)["__wrapped__"]))
        return combine("library", *digests)

    def _registry(self, registry: Mapping[Any, Any]) -> Steps:
        digests = []
        for kind, function in sorted(registry.items(), key=lambda item: label(item[0])):
            digests.append(combine("item", (yield kind), (yield function)))
        return combine("registry", *sorted(digests))

    # Classes and modules

    def _class(self, cls: type) -> Steps:
        module = sys.modules.get(cls.__module__)
        if module is not None and _is_library_module(module):
            return combine("library", label(cls), origin(cls.__module__))
        members = {name: member for name, member in vars(cls).items() if name not in _IGNORED_MEMBERS}
        inner = yield from self._attributes("members", members)
        bases = yield from self._sequence("bases", cls.__bases__)
        return combine("class", encoded(cls.__qualname__), inner, bases, (yield type(cls)))

    def _module(self, module: ModuleType) -> Steps:
        """A module as a value: of a user's module, any part may be used."""
        if _is_library_module(module):
            return combine("module", encoded(module.__name__), origin(module.__name__))
        if module.__name__ != "__main__" and file_of(module.__name__) is not None:
            return self._source_of(module.__name__)
        members = {name: value for name, value in vars(module).items() if not name.startswith("__")}
        return (yield from self._attributes("module", members))

    def _import(self, imported: Import, function: FunctionType) -> Steps:
        """What a function's body imports: the module's code, and what it holds if it is loaded."""
        name = imported.module
        if imported.level:
            package = function.__globals__.get("__package__") or ""
            name = importlib.util.resolve_name("." * imported.level + name, package)
        digests = [encoded(name)]
        for module in (name, *(f"{name}.{part}" for part in imported.names)):
            if module != name and module not in sys.modules and file_of(module) is None:
                continue
            digests.append(self._source_of(module))
            loaded = _LOADED_AT_FIRST.setdefault(module, sys.modules.get(module))
            if isinstance(loaded, ModuleType) and not _is_library_module(loaded):
                wanted = {*imported.names, *references(function.__code__).attributes}
                members = {name: value for name, value in vars(loaded).items() if name in wanted}
                self._names.append(module)
                digests.append((yield from self._attributes("loaded", members)))
                self._names.pop()
        return combine("import", *digests)

    def _source_of(self, module: str) -> bytes:
        """The digest of the code of a module and of the user's modules that it imports."""
        digests: dict[str, bytes] = {}
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in digests or name == "__main__":
                continue
            file = file_of(name)
            code = None if is_library(name, file) else code_of(name)
            if code is None:
                if file is not None or is_library(name, file):
                    digests[name] = origin(name)
                continue
            digests[name] = _code(code)
            waiting += _modules_in(name, code)
            package = name.rpartition(".")[0]
            if package:
                waiting.append(package)
        return combine("source", *_chain_items(digests))


@functools.lru_cache(maxsize=1024)
def _imports_by_text(code: CodeType) -> tuple[Import, ...]:
    """The user's modules among the words in the text of code that may import modules by text."""
    words = sorted(references(code).words)
    return tuple(
        Import(0, word, ()) for word in words if (file := file_of(word)) and not is_library(word, file)
    )


def _chain_items(digests: Mapping[str, bytes]) -> Iterable[bytes]:
    """Names and digests, sorted."""
    for name, found in sorted(digests.items()):
        yield encoded(name)
        yield found


def _modules_in(module: str, code: CodeType) -> Iterable[str]:
    """The modules that the code of a module imports, or may import: some are names of other things."""
    package = module
    if not (file_of(module) or "").endswith("__init__.py"):
        package = module.rpartition(".")[0]
    found = references(code)
    for level, name, names in found.imports:
        try:
            full = importlib.util.resolve_name("." * level + name, package) if level else name
        except ImportError:
            continue
        yield full
        yield from (f"{full}.{part}" for part in names if part != "*")


def _is_library_module(module: ModuleType) -> bool:
    return is_library(module.__name__, getattr(module, "__file__", None))


_STEPS: tuple[tuple[Any, Callable[[CodeWalk, Any], Steps]], ...] = (
    (FunctionType, CodeWalk._function),
    (type, CodeWalk._class),
    (MethodType, CodeWalk._method),
    (BuiltinFunctionType, CodeWalk._builtin),
    (ModuleType, CodeWalk._module),
    (CodeType, CodeWalk._code),
    (TaskBase, CodeWalk._task),
    (_DESCRIPTORS, CodeWalk._descriptor),
)


@functools.lru_cache(maxsize=1024)
def _code(code: CodeType) -> bytes:
    """The digest of a code object, without file and line numbers; cached, because code is immutable."""
    return combine(
        "code",
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        marshal.dumps((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount), 2),
        encoded(code.co_flags & ~HAS_DOCSTRING),
        *map(_names, (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)),
        *map(_constant, constants(code)),
    )


def _constant(constant: Any) -> bytes:
    """The digest of a constant in a code object; only that of nested code is cached."""
    return _code(constant) if isinstance(constant, CodeType) else ValueWalk().of(constant)


def _names(names: Iterable[str]) -> bytes:
    return "\0".join(names).encode("utf-8", "surrogatepass")
