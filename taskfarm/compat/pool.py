"""`Pool`, with the methods of `multiprocessing.Pool`, on the farm of this process."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn
from weakref import WeakSet

from taskfarm.compat.async_results import (
    ApplyResult,
    AsyncResult,
    Callback,
    IMapIterator,
    MapResult,
)
from taskfarm.errors import CallNotPicklable
from taskfarm.job.farm import Farm, warn_of_ignored
from taskfarm.job.maps import MapArguments, MapOptions, MapRun
from taskfarm.protocol.arguments import Arguments

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"


class NotPicklable:
    """Base of pools, which cannot be sent to another process."""

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


def warn_of_all(arguments: Mapping[str, object]) -> None:
    """Warn the caller of the constructor that calls this of the arguments that have no effect."""
    for name, value in arguments.items():
        if value not in (None, [], {}, ()):
            warn_of_ignored(name, stacklevel=4)


class PrivateFarm(Farm):
    """The farm of a pool, which ``@task`` functions do not use."""

    _can_be_current = False


class Pool(NotPicklable):
    """`multiprocessing.Pool` on the workers that all farms of this process share.

    Three things differ. There are as many workers as ``mpiexec -np`` or ``taskfarm run -n`` have started.
    After `terminate`, `get` raises CancelledError for results that were not ready; a task that runs in its
    worker's own process occupies that worker until it ends. `imap` draws a limited number of tasks ahead of
    what the caller has consumed, not all.

    Parameters
    ----------
    processes : int, optional
        Most workers that run tasks of this pool at a time.
    initializer : callable, optional
        Called on every worker before its first task of this pool.
    initargs : iterable
        The arguments of the initializer.
    maxtasksperchild : int, optional
        If given, tasks run in child processes of the workers, each of which is replaced after so many.

    context, **ignored
        Have no effect, as the keywords with which mpi4py.util.pool starts workers; a warning says so.

    Raises
    ------
    ValueError, TypeError
        As for the original.
    UsageError
        The caller is a task.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        **ignored: Any,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1, or None")
        if maxtasksperchild is not None and not (
            isinstance(maxtasksperchild, int) and maxtasksperchild > 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        warn_of_all({"context": context, **ignored})
        self._farm = PrivateFarm(
            processes,
            initializer=initializer,
            initargs=tuple(initargs),
            max_tasks_per_child=maxtasksperchild,
        )
        self._state = RUN
        self._results: WeakSet[AsyncResult | IMapIterator] = WeakSet()

    @property
    def _processes(self) -> int:
        """Number of workers; libraries that accept a pool read this attribute."""
        return self._farm.num_workers

    def _check_running(self) -> Farm:
        if self._state != RUN:
            raise ValueError("Pool not running: it was closed or terminated; create a new one")
        self._farm._check_open()
        return self._farm

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """Call a function on a worker, and return its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Queue a call.

        Parameters
        ----------
        func : callable
            The function.
        args, kwds
            Its arguments.
        callback, error_callback : callable, optional
            Called with the result, or with the exception.
        """
        farm = self._check_running()
        result = ApplyResult(farm._master, callback, error_callback)
        result.follow(farm.submit(func, *args, **kwds))
        self._results.add(result)
        return result

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function for each item; returns the list of results when all have ended.

        Parameters
        ----------
        func : callable
            The function.
        iterable : iterable
            Its arguments.
        chunksize : int, optional
            Tasks to send together; by default the farm measures the best number.
        """
        return self._queue(func, iterable, False, chunksize).get()  # type: ignore[no-any-return]

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function with each tuple as its arguments; otherwise like `map`."""
        return self._queue(func, iterable, True, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Like `map`, without waiting; the callbacks are those of `apply_async`, for the whole list."""
        return self._queue(func, iterable, False, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Like `starmap`, without waiting; otherwise like `map_async`."""
        return self._queue(func, iterable, True, chunksize, callback, error_callback)

    def _queue(
        self, func: Any, iterable: Any, star: bool, chunksize: int | None, *callbacks: Callback
    ) -> AsyncResult:
        farm = self._check_running()
        MapOptions(chunksize=chunksize).checked()
        result = MapResult(farm._master, *callbacks)
        rows = [tuple(item) for item in iterable] if star else list(iterable)
        if not rows:
            # As in the original, an empty map calls no callback.
            return AsyncResult.of(farm._master, [])
        arguments = Arguments.from_rows(rows) if star else Arguments.from_columns([rows])
        try:
            result.queue(farm, func, arguments, chunksize or 0)
        except CallNotPicklable as error:
            result.end(None, error)
        self._results.add(result)
        return result

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """Call a function for each item, drawn as needed; returns an iterator over the results.

        Parameters
        ----------
        func : callable
            The function.
        iterable : iterable
            Its arguments; may be infinite.
        chunksize : int
            Tasks to send together; with 1, the farm measures the best number.
        """
        return self._iterate(func, iterable, chunksize, False)

    def istarmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int = 1
    ) -> IMapIterator:
        """Like `imap`, with each tuple as the arguments of a call; as in mpi4py.util.pool."""
        return self._iterate(func, iterable, chunksize, False, star=True)

    def istarmap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int = 1
    ) -> IMapIterator:
        """Like `istarmap`, with the results in the order in which they arrive."""
        return self._iterate(func, iterable, chunksize, True, star=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Like `imap`, with the results in the order in which they arrive."""
        return self._iterate(func, iterable, chunksize, True)

    def _iterate(
        self, func: Any, iterable: Iterable[Any], chunksize: int, unordered: bool, star: bool = False
    ) -> IMapIterator:
        farm = self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        options = MapOptions(chunksize=chunksize if chunksize > 1 else None, unordered=unordered)
        function = farm._functions.register(func)
        run = MapRun(farm._master, function, MapArguments([iterable], star), options)
        run.feed()
        farm._wake_background()
        result = IMapIterator(farm._master, run)
        self._results.add(result)
        return result

    def close(self) -> None:
        """Accept no more tasks; those that were submitted run to their end."""
        if self._state == RUN:
            self._state = CLOSE
            self._farm.shutdown(wait=False)

    def terminate(self) -> None:
        """Accept no more tasks, cancel those that have not started, and abandon those that run."""
        self._state = TERMINATE
        for result in list(self._results):
            result.abandon()
        self._farm.abandon()

    def join(self) -> None:
        """Wait for the tasks of this pool; call `close` or `terminate` first.

        Raises
        ------
        ValueError
            The pool is still running.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running: call close() or terminate() first")
        if self._state == CLOSE:
            self._farm.shutdown()

    def __del__(self) -> None:
        if getattr(self, "_state", None) == RUN:
            text = f"unclosed running multiprocessing pool {self!r}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __enter__(self) -> "Pool":
        self._check_running()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Terminate the pool, as the original does: queued tasks are cancelled."""
        self.terminate()
