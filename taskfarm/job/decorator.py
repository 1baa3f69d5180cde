"""`@task`: a function that can also be submitted and mapped.

Workers import this module to unpickle a task, so it imports neither the farm nor the master.
"""

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

from taskfarm.job.current_farm import registry
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.reduction import NO_INITIAL
from taskfarm.protocol.task_base import TaskBase, is_task, unwrap_task
from taskfarm.schedule import policy
from taskfarm.worker.context import IN_TASK, INLINE, refuse_thread_of_task

if TYPE_CHECKING:
    from typing import Unpack

    from taskfarm.job.farm import Farm
    from taskfarm.job.futures import Future
    from taskfarm.job.task_types import TaskOptions, TaskWithReplacedErrors

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
E = TypeVar("E")

_MAP_OPTIONS = ("chunksize", "buffersize", "unordered")
_OPTIONS = ("name", *_MAP_OPTIONS, *policy.OPTIONS)


class Task(TaskBase, Generic[P, R]):
    """A function with `submit`, `map` and `starmap`; a plain call runs it at once in this process.

    Attributes
    ----------
    name : str
        The name of the function in messages.
    """

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        unknown = set(options) - set(_OPTIONS)
        if unknown:
            raise TypeError(
                f"unknown task option: {', '.join(sorted(unknown))}; the options are {', '.join(_OPTIONS)}"
            )
        functools.update_wrapper(self, function, updated=())
        self.__taskfarm_function__: Callable[P, R] = function
        self.name: str = options.get("name") or name_of(function)
        self.__taskfarm_policy__ = {
            option: value for option, value in options.items() if option in policy.OPTIONS
        }
        policy.Policy().changed(self.__taskfarm_policy__)
        self._options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function at once in this process."""
        return self.__taskfarm_function__(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type, /) -> "Task[P, R]": ...
    @overload
    def __get__(
        self: "Task[Concatenate[Any, Q], R]", instance: object, owner: type | None = None, /
    ) -> "Task[Q, R]": ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        """Bind to an instance, as a function does."""
        if instance is None:
            return self
        bound = self.__taskfarm_function__.__get__(instance, owner)
        return Task(bound, self._options)

    def __copy__(self) -> "Task[P, R]":
        return self

    def __deepcopy__(self, memo: Any) -> "Task[P, R]":
        # As a function does.
        return self

    def __repr__(self) -> str:
        """Show the name, and the options that are set."""
        options = [f"{name}={value!r}" for name, value in self._options.items() if name != "name"]
        return f"<Task {' '.join([self.name, *options])}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # By name if the name refers to this task, or to the one of which this has other options.
        found: Any = sys.modules.get(self.__module__)
        for part in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        if found is self:
            return self.__qualname__
        if type(found) is type(self) and found.__taskfarm_function__ is self.__taskfarm_function__:
            return _with_options, (found, self._options)
        return super().__reduce_ex__(protocol)

    @overload
    def options(
        self, *, on_error: Literal["return"], **options: "Unpack[TaskOptions]"
    ) -> "TaskWithReplacedErrors[P, R, BaseException]": ...
    @overload
    def options(
        self, *, on_error: Callable[[BaseException], E], **options: "Unpack[TaskOptions]"
    ) -> "TaskWithReplacedErrors[P, R, E]": ...
    @overload
    def options(
        self, *, on_error: Literal["raise"] = "raise", **options: "Unpack[TaskOptions]"
    ) -> "Task[P, R]": ...
    def options(self, **options: Any) -> "Task[P, R]":
        """Return the same task with other options.

        Parameters
        ----------
        **options
            ``name``; defaults for `map` and `starmap`: ``chunksize``, ``buffersize``, ``unordered``;
            and how tasks are run, as in `taskfarm.schedule.policy.Policy`: ``retries``, ``timeout``
            (seconds), ``memory`` (bytes, or a string such as ``"2GB"``), ``isolate``, ``on_error``,
            ``key``, ``keep``, ``priority``, ``needs``, ``expect``, ``order``, ``max_tasks``, ``ranks`` and
            ``hosts``.

        Raises
        ------
        TypeError, ValueError
            An option is unknown, or its value is invalid.
        """
        return Task(self.__taskfarm_function__, {**self._options, **options})

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Queue a call on the current farm; see `Farm.submit`."""
        return _current_farm().submit(self, *args, **kwargs)

    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        with_arguments: Literal[True],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[tuple[Any, R]]: ...
    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        with_arguments: Literal[False] = False,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[R]: ...
    def map(self, *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Call the function for all items of some iterables on the current farm; see `Farm.map`.

        Parameters
        ----------
        *iterables : iterables
            One per positional argument; they may be infinite.
        **options
            ``timeout``, ``chunksize``, ``buffersize``, ``unordered``, ``with_arguments``, ``priority`` and
            ``order``, as in `Farm.map`; by default those of the task. Each other keyword is passed to every
            call of the function, as by `functools.partial`, and is sent once; so are ``priority`` and
            ``order`` if the function has parameters of these names.

        Raises
        ------
        TypeError
            A keyword is neither an option nor a parameter of the function.
        """
        called, options = self._with_constants(iterables, options)
        return _current_farm().map(called, *iterables, **options)

    @overload
    def starmap(
        self,
        tuples: Iterable[Iterable[Any]],
        /,
        *,
        with_arguments: Literal[True],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[tuple[Any, R]]: ...
    @overload
    def starmap(
        self,
        tuples: Iterable[Iterable[Any]],
        /,
        *,
        with_arguments: Literal[False] = False,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[R]: ...
    def starmap(self, tuples: Iterable[Iterable[Any]], /, **options: Any) -> Iterator[Any]:
        """Call the function with the arguments of each tuple; otherwise like `map`."""
        called, options = self._with_constants((), options)
        return _current_farm().starmap(called, tuples, **options)

    def reduce(
        self,
        operation: Callable[[R, R], R],
        *iterables: Iterable[Any],
        initial: R = NO_INITIAL,
        timeout: float | None = None,
        chunksize: int | None = None,
        **constants: Any,
    ) -> R:
        """Combine the results of a map to one value, on the workers of the current farm; see `Farm.reduce`.

        Parameters
        ----------
        operation : callable
            Called with two neighbouring values; it must be associative, but need not be commutative.
        *iterables : iterables
            One per positional argument; they are drawn as needed.
        initial, timeout, chunksize
            As for `Farm.reduce`.
        **constants
            Passed to every call of the function, and sent once.

        Raises
        ------
        TypeError
            There are no calls and no ``initial``, or a keyword is no parameter of the function.
        """
        called = bind_constants(self, iterables, constants, ("initial", "timeout", "chunksize"))
        if chunksize is None:
            chunksize = self._options.get("chunksize")
        options: dict[str, Any] = {"initial": initial, "timeout": timeout, "chunksize": chunksize}
        return cast(R, _current_farm().reduce(called, operation, *iterables, **options))

    def map_array(
        self,
        array: Any,
        /,
        *arrays: Any,
        rows: int | None = None,
        out: Any = None,
        axis: int = 0,
        timeout: float | None = None,
        **constants: Any,
    ) -> Any:
        """Call the function with blocks of rows of arrays on the current farm; see `Farm.map_array`."""
        return _current_farm().map_array(
            self, array, *arrays, rows=rows, out=out, axis=axis, timeout=timeout, **constants
        )

    def over(self, *arrays: Any, out: Any = None, timeout: float | None = None, **constants: Any) -> Any:
        """Call the function for all elements of broadcast arrays on the current farm; see `Farm.over`."""
        return _current_farm().over(self, *arrays, out=out, timeout=timeout, **constants)

    def _with_constants(
        self, iterables: tuple[Any, ...], keywords: dict[str, Any]
    ) -> "tuple[Task[..., R], dict[str, Any]]":
        """The task with the constants among some keywords, and the options of the map."""
        options = {name: value for name, value in self._options.items() if name in _MAP_OPTIONS}
        constants = {}
        for name, value in keywords.items():
            if name not in _KEYWORDS or (name in CHOSEN and _has_parameter(self, name)):
                constants[name] = value
            elif value is not None:
                options[name] = value
        return bind_constants(self, iterables, constants, _KEYWORDS), options


CHOSEN = ("priority", "order")
"""The options of a map that are also options of a task: when its tasks start."""

_KEYWORDS = (*_MAP_OPTIONS, "timeout", "with_arguments", *CHOSEN)


def _has_parameter(task: Task[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    import inspect

    try:
        return name in inspect.signature(unwrap_task(task)).parameters
    except (TypeError, ValueError):
        return False


def with_options(function: Any, **options: Any) -> Any:
    """A function or task with these options; the same one if all are None."""
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return function
    own = dict(function._options) if is_task(function) else {"name": name_of(function)}
    return Task(unwrap_task(function), {**own, **given})


def bind_constants(
    function: Any, arguments: tuple[Any, ...], constants: dict[str, Any], options: tuple[str, ...]
) -> Any:
    """A function or task with constant keywords: a task, unless there are none.

    Parameters
    ----------
    function : callable
        The function.
    arguments : tuple
        One object for each positional argument.
    constants : dict
        The keywords.
    options : tuple of str
        The other keywords that the caller knows, for the error.

    Raises
    ------
    TypeError
        A keyword is no parameter of the function.
    """
    if not constants:
        return function
    called = unwrap_task(function)
    _check_constants(name_of(function), called, arguments, constants, options)
    # Most programs share nothing.
    from taskfarm.protocol.shared import as_value, value_of

    def with_constants(key: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(key, **{name: value_of(value) for name, value in constants.items()})

    values = {name: as_value(value) for name, value in constants.items()}
    return derived_task(function, functools.partial(called, **values), with_constants, with_constants)


def derived_task(
    function: Any,
    called: Callable[..., Any],
    key_of: Callable[[Callable[..., Any]], Callable[..., Any]],
    expect_of: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda expect: expect,
) -> Task[..., Any]:
    """A task that calls something else in the place of a function or task, with its name and options.

    Parameters
    ----------
    function : callable
        The function.
    called : callable
        What the task calls.
    key_of : callable
        Makes the option ``key`` of the new task from that of the function, if it has one.
    expect_of : callable
        The same for the option ``expect``, if it is a function.
    """
    options = dict(function._options) if is_task(function) else {}
    options["name"] = name_of(function)
    if (key := options.get("key")) is not None:
        options["key"] = key_of(key)
    if callable(expect := options.get("expect")):
        options["expect"] = expect_of(expect)
    return Task(called, options)


def _check_constants(
    name: str,
    function: Callable[..., Any],
    iterables: tuple[Any, ...],
    constants: dict[str, Any],
    options: tuple[str, ...],
) -> None:
    """Raise TypeError for a keyword that the function does not take, before any task is sent."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some functions in C have no signature.
        return
    try:
        signature.bind_partial(*iterables, **constants)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; the options are {', '.join(options)}") from None


def _with_options(task: "Task[P, R]", options: dict[str, Any]) -> "Task[P, R]":
    return Task(task.__taskfarm_function__, options)


def _current_farm() -> "Farm":
    """Return the current farm, or the default one, which the first call opens; in a task, its own."""
    if (context := IN_TASK.get()) is not None:
        return cast("Farm", context.spawner)
    if INLINE.thread is not None and INLINE.thread != threading.get_ident():
        # It would wait for the task, which may wait for it.
        refuse_thread_of_task()
    farm = registry.current
    if farm is not None:
        return cast("Farm", farm)
    from taskfarm.job.farm import current_farm

    return current_farm()


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, on_error: Literal["return"], **options: "Unpack[TaskOptions]"
) -> "Callable[[Callable[P, R]], TaskWithReplacedErrors[P, R, BaseException]]": ...
@overload
def task(
    *, on_error: Callable[[BaseException], E], **options: "Unpack[TaskOptions]"
) -> "Callable[[Callable[P, R]], TaskWithReplacedErrors[P, R, E]]": ...
@overload
def task(
    *, on_error: Literal["raise"] = "raise", **options: "Unpack[TaskOptions]"
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task`` or ``@task(name=..., ...)``; see `Task.options`."""
    if function is None:
        return lambda function: Task(function, options)
    return Task(function, options)
