"""The results that the methods of `Pool` return, with the interface of multiprocessing."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from taskfarm.interrupts import interruptible
from taskfarm.job.expecting import expect_calls
from taskfarm.job.farm import Farm
from taskfarm.job.futures import Future
from taskfarm.job.maps import MapRun
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.outcomes import Completed

Callback = Callable[[Any], object] | None

_TERMINATED = "the pool was terminated before this result was ready"


class PoolTimeout(multiprocessing.TimeoutError, TimeoutError):
    """A result was not ready in time: what multiprocessing raises, and what mpi4py.util.pool does."""


class Terminated(CancelledError, TimeoutError):
    """The pool was terminated before a result was ready; for mpi4py.util.pool that is a timeout."""


class AsyncResult:
    """The result of a call or a map, as `multiprocessing.pool.AsyncResult`.

    A callback runs in the thread that runs the event loop: one that waits for the farm, or the farm's
    background thread. An exception that it raises is logged. The result is ready when its callback has
    returned; within a callback of the same thread, as soon as its value is known.
    """

    def __init__(self, master: Master, callback: Callback = None, error_callback: Callback = None) -> None:
        self._master = master
        self._callback = callback
        self._error_callback = error_callback
        self._value: Any = None
        self._error: BaseException | None = None
        self._claimed = False
        self._over = False
        self._unseen = 0

    @classmethod
    def of(cls, master: Master, value: Any) -> "AsyncResult":
        """A result that is ready."""
        self = cls(master)
        self.end(value)
        return self

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._over or (self._claimed and self._master.delivering)

    def successful(self) -> bool:
        """Whether the call has ended without an exception.

        Raises
        ------
        ValueError
            The call has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready: call wait() first")
        self._look()
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, but at most `timeout` seconds."""
        if not self.ready():
            self._master.run_until(self.ready, self._master.deadline(timeout))

    def get(self, timeout: float | None = None) -> Any:
        """The result.

        Parameters
        ----------
        timeout : float, optional
            Maximum time to wait, in seconds.

        Raises
        ------
        multiprocessing.TimeoutError
            The call has not ended in time.
        CancelledError
            The pool was terminated before the call ended.
        Exception
            The exception of the task; for a map, that of the first task that failed.
        """
        self.wait(timeout)
        if not self.ready():
            raise PoolTimeout(f"not ready after {timeout} s: call get() again")
        self._look()
        if self._error is not None:
            raise self._error
        return self._value

    def _look(self) -> None:
        """Note that the job looks at the exception, if there is one."""
        self._master.unseen.discard(self._unseen)

    def end(self, value: Any, error: BaseException | None = None) -> None:
        """Set the outcome; only the first one counts."""
        with self._master.lock:
            if self._claimed:
                return
            self._value, self._error = value, error
            self._claimed = True
        cancelled = issubclass(type(error), CancelledError)
        if error is not None and not cancelled and self._error_callback is None:
            self._unseen = self._master.unseen.add(0, error)
        self._master.deliveries.call(AsyncResult._call_back, self)
        if not self._master.delivering:
            self._master.deliveries.deliver()

    @interruptible
    def _call_back(self) -> None:
        callback = self._callback if self._error is None else self._error_callback
        try:
            if callback is not None and not issubclass(type(self._error), CancelledError):
                callback(self._value if self._error is None else self._error)
        finally:
            self._over = True

    def abandon(self) -> None:
        """Cancel the call, because the pool was terminated."""
        self.end(None, Terminated(_TERMINATED))


class ApplyResult(AsyncResult):
    """The result of one call."""

    def follow(self, future: Future[Any]) -> None:
        """Set the outcome from a future when that has ended."""
        self._future = future
        future.add_done_callback(self._take)

    def ready(self) -> bool:
        """Whether the call has ended."""
        if not self._claimed and self._master.delivering and self._future.done():
            # The callback of the future waits for the end of the one that calls this.
            self._take(self._future)
        return super().ready()

    def _take(self, future: Any) -> None:
        if future.cancelled():
            self.abandon()
            return
        error = future.exception()
        if error is not None:
            self.end(None, error)
        else:
            self.end(future.result())

    def abandon(self) -> None:
        self._future.cancel()
        super().abandon()


class MapResult(AsyncResult):
    """The result of a map, a list. It is the result sink of the tasks, all of which are queued at once."""

    def queue(self, farm: Farm, function: Any, arguments: Arguments, chunksize: int) -> None:
        """Queue all the calls."""
        self._remaining = arguments.count
        self._failures: dict[int, BaseException] = {}
        function = farm._functions.register(function)
        self._stream = next(farm._farm.map_streams)
        self._progress = MapProgress(
            function.name, self._remaining, number=self._master.number_map(), drawn=self._remaining
        )
        self._master.maps.add(self._progress)
        if function.demand is not None and function.demand.by_call:
            expect_calls(function, arguments)
        with self._master.lock:
            self._value = [None] * self._remaining
            self._first = self._master.queue_calls(function, arguments, self, chunksize)
        self._master.watch(function, arguments)
        self._master.deliver_restored()
        farm._run_queued()

    def mark_running(self) -> None:
        """Do nothing: a map does not show which tasks are running."""

    def rng_position(self, count: int) -> tuple[int, int]:
        """The random stream of this map, and 0: all its tasks are queued at once."""
        return self._stream, 0

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Do nothing: no other task needs single results of a map."""

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Count tasks that have ended, those that have failed, and those that will be retried."""
        self._progress.add(ended, failed, retried)

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Refuse: `complete` may call back."""
        return False

    def complete(self, completed: Completed, offset: int) -> None:
        """Store outcomes, which arrive in any order; the result is ready when all have arrived."""
        with self._master.lock:
            if self._claimed:
                return
            start = completed.first - self._first
            self._value[start : start + len(completed.values)] = completed.values
            for offset, error in completed.failures.items():
                self._failures[start + offset] = error
            self._remaining -= len(completed.values)
            if self._remaining:
                return
        if self._failures:
            self.end(None, self._failures[min(self._failures)])
        else:
            self.end(self._value)

    def abandon(self) -> None:
        if not self._over:
            self._progress.closed = True
            self._master.cancel_all_of(self)
        super().abandon()


class IMapIterator(Iterator[Any]):
    """An iterator over results, as `multiprocessing.pool.Pool.imap` returns it.

    An exception of a task is raised in place of its result, and iteration can continue after it.
    """

    def __init__(self, master: Master, run: MapRun) -> None:
        self._master = master
        self._run = run
        self._items: deque[tuple[Any, BaseException | None]] = deque()

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Parameters
        ----------
        timeout : float, optional
            Maximum time to wait, in seconds.

        Raises
        ------
        StopIteration
            There are no more results.
        multiprocessing.TimeoutError
            The result has not arrived in time.
        CancelledError
            The pool was terminated.
        Exception
            The exception of the task or of the iterable.
        """
        while True:
            try:
                value, error = self._items.popleft()
            except IndexError:
                self._draw(timeout)
            else:
                break
        if error is not None:
            raise error
        return value

    def _draw(self, timeout: float | None) -> None:
        run = self._run
        run.begin()
        run.set_timeout(timeout)
        while True:
            with self._master.lock:
                if self._items:  # another thread has drawn
                    return
                completed = run.take()
                if completed is not None:
                    failures = completed.failures
                    self._items.extend(
                        (value, failures.get(offset)) for offset, value in enumerate(completed.values)
                    )
                    run.consumed(len(completed.values))
                    return
                if run.is_over():
                    break
            try:
                run.wait()
            except TimeoutError:
                raise PoolTimeout(f"no result in {timeout} s: call next() again") from None
        error = run.take_error()
        run.close()
        if error is not None:
            raise error
        raise StopIteration

    def abandon(self) -> None:
        with self._master.lock:
            over = self._run.is_over()
        if not over:
            self._items.append((None, Terminated(_TERMINATED)))
            self._run.close()
