"""`Pool`, with the methods of `multiprocessing.Pool`, on the farm of this process."""

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
from taskfarm.job.farm import Farm, current_farm
from taskfarm.job.maps import MapArguments, MapOptions, MapRun
from taskfarm.protocol.arguments import Arguments

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"


class NotPicklable:
    """Base of pools, which cannot be sent to another process."""

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


class Pool(NotPicklable):
    """`multiprocessing.Pool` whose workers are those of the farm.

    Without an initializer, a pool uses the open farm, or the default one, so several pools can exist at a
    time. With an initializer, it opens a farm of its own. Three things differ. The number of workers is set
    by ``mpiexec -np`` or ``taskfarm run -n``. `terminate` lets running tasks end, and the results of the
    others raise CancelledError. `imap` draws a limited number of tasks ahead of what the caller has
    consumed, not all.

    Parameters
    ----------
    processes : int, optional
        Checked, but has no effect.
    initializer : callable, optional
        Called on every worker before its first task of this pool.
    initargs : iterable
        The arguments of the initializer.
    maxtasksperchild : int, optional
        Checked, but has no effect: workers are not replaced. Tasks of ``taskfarm.task(isolate=True)`` run
        in a child process of their worker; each worker has one child, which its isolated tasks share.

    Raises
    ------
    ValueError, TypeError
        As for the original.
    UsageError
        An initializer was passed and another farm is open, or the caller is a task.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        _farm: Farm | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1, or None")
        if maxtasksperchild is not None and not (
            isinstance(maxtasksperchild, int) and maxtasksperchild > 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._own: Farm | None = None
        if initializer is not None:
            self._own = Farm(initializer=initializer, initargs=tuple(initargs))
        self._given = _farm or self._own
        self._used = self._given
        self._state = RUN
        self._results: WeakSet[AsyncResult | IMapIterator] = WeakSet()

    @property
    def _processes(self) -> int:
        """Number of workers; libraries that accept a pool read this attribute."""
        return (self._given or current_farm()).num_workers

    def _running_farm(self) -> Farm:
        if self._state != RUN:
            raise ValueError("Pool not running: it was closed or terminated; create a new one")
        # A pool that has no farm of its own may use several, one after the other.
        self._used = farm = self._given or current_farm()
        farm._check_open()
        return farm

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
        farm = self._running_farm()
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
        farm = self._running_farm()
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

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Like `imap`, with the results in the order in which they arrive."""
        return self._iterate(func, iterable, chunksize, True)

    def _iterate(self, func: Any, iterable: Iterable[Any], chunksize: int, unordered: bool) -> IMapIterator:
        farm = self._running_farm()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        options = MapOptions(chunksize=chunksize if chunksize > 1 else None, unordered=unordered)
        function = farm._master.functions.register(func)
        run = MapRun(farm._master, function, MapArguments([iterable], star=False), options)
        run.feed()
        farm._wake_background()
        result = IMapIterator(farm._master, run)
        self._results.add(result)
        return result

    def close(self) -> None:
        """Accept no more tasks; those that were submitted run to their end."""
        if self._state == RUN:
            self._state = CLOSE
            if self._own is not None:
                self._own._master.finish_maps()
                self._own.shutdown(wait=False)

    def terminate(self) -> None:
        """Accept no more tasks, and cancel those that have not started."""
        self._state = TERMINATE
        for result in list(self._results):
            result.abandon()
        if self._own is not None:
            self._own.shutdown(wait=self._own._master.idle, cancel_futures=True)

    def join(self) -> None:
        """Wait for all tasks of the farm; call `close` or `terminate` first.

        Raises
        ------
        ValueError
            The pool is still running.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running: call close() or terminate() first")
        if self._used is not None:
            self._used._master.finish()

    def __enter__(self) -> "Pool":
        self._running_farm()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Terminate the pool, as the original does: queued tasks are cancelled."""
        self.terminate()
