"""`@task`: a function that can also be submitted and mapped.

Workers import this module to unpickle a task, so it imports neither the farm nor the master.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from taskfarm.job.current_farm import registry
from taskfarm.protocol.describe import name_of
from taskfarm.schedule import policy
from taskfarm.worker.context import refuse_in_task

if TYPE_CHECKING:
    from concurrent.futures import Future

    from taskfarm.job.farm import Farm

P = ParamSpec("P")
R = TypeVar("R")

_MAP_OPTIONS = ("chunksize", "buffersize", "unordered")
_OPTIONS = ("name", *_MAP_OPTIONS, *policy.OPTIONS)


class Task(Generic[P, R]):
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
        self.__taskfarm_function__ = function
        self.name: str = options.get("name") or name_of(function)
        self.__taskfarm_policy__ = {
            option: value for option, value in options.items() if option in policy.OPTIONS
        }
        policy.Policy().changed(self.__taskfarm_policy__)
        self._options = options

    def __getstate__(self) -> dict[str, Any]:
        # Callables are used only on rank 0, and may be unpicklable.
        options = {option: value for option, value in self._options.items() if not callable(value)}
        return {**vars(self), "_options": options, "__taskfarm_policy__": {}}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function at once in this process."""
        return self.__taskfarm_function__(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a function does."""
        if instance is None:
            return self
        bound = self.__taskfarm_function__.__get__(instance, owner)
        return Task(bound, self._options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # By name if the name refers to this task; otherwise by value, as for functions of __main__.
        found: Any = sys.modules.get(self.__module__) if self.__module__ != "__main__" else None
        for part in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        return self.__qualname__ if found is self else super().__reduce_ex__(protocol)

    def options(self, **options: Any) -> "Task[P, R]":
        """Return the same task with other options.

        Parameters
        ----------
        **options
            ``name``; defaults for `map` and `starmap`: ``chunksize``, ``buffersize``, ``unordered``;
            and how tasks are run, as in `taskfarm.schedule.policy.Policy`: ``retries``, ``timeout``
            (seconds), ``memory`` (bytes, or a string such as ``"2GB"``), ``isolate``, ``on_error`` and
            ``key``.

        Raises
        ------
        TypeError, ValueError
            An option is unknown, or its value is invalid.
        """
        return Task(self.__taskfarm_function__, {**self._options, **options})

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Queue a call on the current farm; see `Farm.submit`."""
        return _current_farm().submit(self, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **options: Any) -> Iterator[R]:
        """Call the function for all items of some iterables on the current farm; see `Farm.map`."""
        return _current_farm().map(self, *iterables, **self._map_options(options))

    def starmap(self, tuples: Iterable[Iterable[Any]], **options: Any) -> Iterator[R]:
        """Call the function with the arguments of each tuple; see `Farm.starmap`."""
        return _current_farm().starmap(self, tuples, **self._map_options(options))

    def _map_options(self, options: dict[str, Any]) -> dict[str, Any]:
        defaults = {option: value for option, value in self._options.items() if option in _MAP_OPTIONS}
        return {**defaults, **options}


def _current_farm() -> "Farm":
    """Return the current farm, or the default one, which the first call opens."""
    farm = registry.current
    if farm is not None:
        return cast("Farm", farm)
    refuse_in_task()
    from taskfarm.job.farm import current_farm

    return current_farm()


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task`` or ``@task(name=..., ...)``; see `Task.options`."""
    if function is None:
        return lambda function: Task(function, options)
    return Task(function, options)
