"""Where functions and classes of the job's file live: in the job's process, and on each worker.

The ``__main__`` module of the job is a side, and so is the namespace that stands for it on a worker. A
pickle refers to what both sides have by its name there, so loading it never makes a second class or
function, and never changes one. This module has what such a pickle calls while it is loaded.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

from taskfarm.errors import CallNotPicklable

LOCAL_NAMES = frozenset({"__builtins__", "__name__", "__loader__", "__cached__"})
"""Globals that every module has for itself."""


class Side:
    """One side: a module ``__main__``, and the classes that are known by a token.

    Parameters
    ----------
    module : ModuleType or None
        The module; None stands for the one that this process runs.

    Attributes
    ----------
    is_job : bool
        Whether this is the job itself, whose classes and globals nothing that is loaded may change.
    defined : dict of str to int
        On a worker: the names that the job has defined, and which definition each one has now.
    load_shared : callable or None
        Returns the value of a `Shared` by its token.
    load_kept : callable or None
        Returns the value of a `Kept`.
    """

    def __init__(self, module: ModuleType | None = None) -> None:
        self._module = module
        self.is_job = module is None
        self.defined: dict[str, int] = {}
        self.load_shared: Callable[[bytes], Any] | None = None
        self.load_kept: Callable[[Any], Any] | None = None
        self._classes: WeakValueDictionary[str, type] = WeakValueDictionary()
        self._tokens: WeakKeyDictionary[type, str] = WeakKeyDictionary()
        self._bare: set[str] = set()
        self._counts: dict[str, int] = {}
        self._lock = threading.RLock()

    @property
    def module(self) -> ModuleType:
        """The module ``__main__`` of this side."""
        return self._module or _STACK.job_main or sys.modules["__main__"]

    def token_of(self, cls: type) -> str:
        """What identifies a class on every side."""
        with self._lock:
            token = self._tokens.get(cls)
            if token is None:
                token = self._tokens[cls] = self._new_token(f"{cls.__module__}.{cls.__qualname__}")
                self._classes[token] = cls
        return token

    def knows(self, cls: type) -> bool:
        """Whether a class has travelled, or will."""
        return cls in self._tokens

    @property
    def owns_modules(self) -> bool:
        """Whether modules that are imported here are not the job's: this is another process."""
        return not self.is_job and _STACK.side is self and _STACK.thread is None

    def _new_token(self, name: str) -> str:
        if not self.is_job:
            return uuid4().hex
        # The journal knows a call by its pickle, which has to be the same in the next run.
        self._counts[name] = number = self._counts.get(name, 0) + 1
        return f"{name} {number}"

    def class_of(self, token: str, make: Callable[[], type]) -> type:
        """The class with a token; it is made if this side does not have it."""
        with self._lock:
            found = self._classes.get(token)
            if found is None:
                found = self._classes[token] = make()
                self._tokens[found] = token
                self._bare.add(token)
        return found

    def is_new(self, cls: type) -> bool:
        """Whether a class was made by `class_of` and has no content yet; True once."""
        with self._lock:
            token = self._tokens.get(cls, "")
            new = token in self._bare
            self._bare.discard(token)
        return new


class _Stack:
    """The sides that are installed in this process, the last one in use."""

    def __init__(self) -> None:
        self.job_main: ModuleType | None = None
        self.side: Side | None = None
        self.thread: int | None = None


_STACK = _Stack()
JOB = Side()
"""The side of the job."""


def here() -> Side:
    """The side on which the calling thread is."""
    side = _STACK.side
    if side is None or _STACK.thread not in (None, threading.get_ident()):
        return JOB
    return side


def install(side: Side) -> None:
    """Make a worker's namespace the ``__main__`` of this process from now on."""
    _STACK.side, _STACK.thread = side, None
    sys.modules["__main__"] = side.module


def is_installed(side: Side) -> bool:
    """Whether a worker's namespace is the one that is installed in this process."""
    return _STACK.side is side


def switch(side: Side) -> None:
    """Make a worker's namespace the ``__main__`` of this process in place of one that is installed."""
    if _STACK.side is None or _STACK.side is side:
        return
    _STACK.side = side
    main = sys.modules["__main__"]
    if type(main) is _MainOfThread:
        object.__getattribute__(main, "_switch")(side.module)
    else:
        sys.modules["__main__"] = side.module


def uninstall(main: ModuleType) -> None:
    """Make a module the ``__main__`` of this process again."""
    _STACK.side = None
    sys.modules["__main__"] = main


class _MainOfThread(ModuleType):
    """A ``__main__`` that is the job's for some threads, and that of its tasks for all others."""

    def __init__(self, of_tasks: ModuleType, of_job: ModuleType, others: set[int | None]) -> None:
        super().__init__("__main__")

        def switch(module: ModuleType) -> None:
            nonlocal of_tasks
            of_tasks = module

        object.__setattr__(self, "_switch", switch)
        object.__setattr__(self, "_choose", lambda: of_job if threading.get_ident() in others else of_tasks)

    def __getattribute__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_choose")(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_choose")(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_choose")(), name)

    def __dir__(self) -> list[str]:
        return dir(object.__getattribute__(self, "_choose")())


class Installed:
    """Makes a worker's namespace the ``__main__`` of this process while the calling thread runs tasks.

    Other threads of the job, which are there already, go on with their own ``__main__``.

    Parameters
    ----------
    side : Side
        The namespace.
    """

    __slots__ = ("_before", "_main", "_side")

    def __init__(self, side: Side) -> None:
        self._side = side
        self._main: ModuleType | None = None

    def __enter__(self) -> None:
        if _STACK.side is self._side:
            return
        self._before = (_STACK.job_main, _STACK.side, _STACK.thread)
        self._main = sys.modules["__main__"]
        _STACK.job_main = _STACK.job_main or self._main
        _STACK.side, _STACK.thread = self._side, threading.get_ident()
        sys.modules["__main__"] = self._side.module
        if threading.active_count() > 1:
            others = {thread.ident for thread in threading.enumerate()} - {_STACK.thread}
            sys.modules["__main__"] = _MainOfThread(self._side.module, self._main, others)

    def __exit__(self, *_: object) -> None:
        if self._main is not None:
            sys.modules["__main__"] = self._main
            _STACK.job_main, _STACK.side, _STACK.thread = self._before


# What pickles call


def main_module() -> ModuleType:
    """The ``__main__`` module of this side."""
    return here().module


def of_main(path: str) -> Any:
    """What has a name in ``__main__``, such as ``Model`` or ``Model.fit``."""
    found: Any = here().module
    for name in path.split("."):
        found = getattr(found, name)
    return found


class NotPickled:
    """Stands on a worker for a global that could not be pickled, and that perhaps nobody uses."""

    def __init__(self, name: str, reason: str) -> None:
        self.__dict__.update(_name=name, _reason=reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return NotPickled, (self._name, self._reason)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise CallNotPicklable(
            f"the global {self._name!r} is not here, because it cannot be pickled: {self._reason}; "
            "create it inside the task or in the farm's initializer"
        )

    def __getattr__(self, name: str) -> Any:
        # Python and its libraries ask for these to find out what an object is.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __setattr__ = __call__ = __iter__ = __next__ = __len__ = __bool__ = __contains__ = _refuse
    __getitem__ = __setitem__ = __enter__ = __exit__ = __add__ = __radd__ = __lt__ = __gt__ = _refuse


def make_cell() -> CellType:
    """An empty cell; the functions that share it fill it."""
    return CellType()


def make_function(
    code: CodeType, namespace: dict[str, Any] | None, name: str, cells: tuple[CellType, ...] | None
) -> FunctionType:
    """A function whose globals are `namespace`, or those of ``__main__`` if that is None."""
    if namespace is None:
        namespace = vars(here().module)
    elif "__builtins__" not in namespace:
        namespace["__builtins__"] = __builtins__
    return FunctionType(code, namespace, name, None, cells)


def fill_function(
    function: FunctionType,
    state: tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, list[tuple[CellType, Any]], Any],
) -> None:
    """Set what a function has besides its code: attributes, defaults, globals of its own, and cells."""
    attributes, slots, namespace, cells, _ = state
    function.__dict__.update(attributes)
    if namespace is not None:
        function.__globals__.update(namespace)
    for cell, content in cells:
        cell.cell_contents = content
    for name, value in slots.items():
        setattr(function, name, value)


def with_file(filename: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    """A code object with the name of its file."""
    return make(*arguments).replace(co_filename=filename)


class _Quiet:
    """A base that keeps the other bases from learning of a class that is only copied."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        pass


class _QuietWithDict:
    """The same for bases whose instances have a ``__dict__``."""

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def make_class(
    creator: type, metaclass: type, name: str, bases: tuple[type, ...], content: dict[str, Any], token: str
) -> type:
    """A class without its content; code of the user, such as ``__init_subclass__``, does not run again.

    Parameters
    ----------
    creator : type
        The metaclass whose ``__new__`` is called: the first one that is not of the job itself.
    metaclass, name, bases
        As for ``type``.
    content : dict
        What must be known from the beginning: ``__module__``, ``__qualname__`` and ``__slots__``.
    token : str
        What identifies the class.
    """

    def make() -> type:
        for quiet in (_QuietWithDict, _Quiet) if _is_told(bases) else ():
            try:
                cls: type = creator.__new__(metaclass, name, (quiet, *bases), dict(content))
                cls.__bases__ = bases
            except TypeError:  # the layout of an instance is another one
                continue
            return cls
        made: type = creator.__new__(metaclass, name, bases, dict(content))
        return made

    return here().class_of(token, make)


def _is_told(bases: Iterable[type]) -> bool:
    """Whether some base wants to know of its subclasses."""
    return any("__init_subclass__" in vars(cls) for base in bases for cls in base.__mro__[:-1])


_KEPT = frozenset({"_abc_impl"})
_CALLED_BY_PYTHON = frozenset({"__init__", "__eq__", "__hash__", "__call__"})


def fill_class(cls: type, state: tuple[dict[str, Any], list[type]]) -> None:
    """Set the content of a class, and the classes that are registered with it."""
    side = here()
    content, registered = state
    new = side.is_new(cls)
    if not new:
        if side.is_job:
            return
        # The job may have changed it since.
        slots = {name for name, value in vars(cls).items() if hasattr(type(value), "__objclass__")}
        for name in vars(cls).keys() - content.keys() - slots - _KEPT:
            if not name.startswith("__") or name in _CALLED_BY_PYTHON:
                type.__delattr__(cls, name)
    # A metaclass of the job may have a __setattr__ of its own.
    change = setattr if type(cls).__module__ == "_ctypes" else type.__setattr__
    for name, value in content.items():
        change(cls, name, value)
    for subclass in registered:
        cls.register(subclass)  # type: ignore[attr-defined]
    if new and side.owns_modules:
        _tell_libraries(side, cls)


def _tell_libraries(side: Side, cls: type) -> None:
    """Let a base that was imported here, and so did not travel, learn of a class."""
    told = (base for base in cls.__mro__[1:-1] if "__init_subclass__" in vars(base))
    owner = next(told, object)
    if owner.__module__ in ("builtins", "enum", "typing") or side.knows(owner):
        return
    # It may want keywords, which nobody knows any more.
    with suppress(Exception):
        vars(owner)["__init_subclass__"].__get__(None, cls)()


def make_member(base: type, cls: type, arguments: tuple[Any, ...]) -> Any:
    """A member of an enumeration that is being copied: the class cannot be asked for it yet."""
    return base.__new__(cls, *arguments)


def make_cached(parameters: dict[str, Any], function: Any) -> Any:
    """A function with an empty cache."""
    import functools

    return functools.lru_cache(**parameters)(function)


def make_library(kind: Any, name: str | None, functions: dict[str, tuple[Any, Any]]) -> Any:
    """A shared library as ctypes loads it; `functions` has the result and argument types of some."""
    library = kind(name)
    for function, (result, arguments) in functions.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


def make_weak(kind: type, items: list[Any]) -> Any:
    """A dictionary with weak references."""
    return kind(items)
