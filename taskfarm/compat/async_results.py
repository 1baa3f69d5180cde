"""What the methods of `Pool` give: results of multiprocessing's kind."""

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from taskfarm.job.farm import Farm
from taskfarm.job.futures import Future
from taskfarm.job.maps import MapRun
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.outcomes import Completed

Callback = Callable[[Any], object] | None


class AsyncResult:
    """What a call or a map will give; as `multiprocessing.pool.AsyncResult`.

    A callback runs in whichever thread moves the farm then: this one while it waits, or the farm's
    own. What it raises is logged.
    """

    def __init__(self, master: Master, callback: Callback = None, error_callback: Callback = None) -> None:
        self._master = master
        self._callback = callback
        self._error_callback = error_callback
        self._value: Any = None
        self._error: BaseException | None = None
        self._claimed = self._over = False

    @classmethod
    def of(cls, master: Master, value: Any) -> "AsyncResult":
        """One that has ended."""
        self = cls(master)
        self.end(value)
        return self

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._over

    def successful(self) -> bool:
        """Whether it has ended without an exception.

        Raises
        ------
        ValueError
            It has not ended.
        """
        if not self._over:
            raise ValueError(f"{self!r} not ready: call wait() first")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or so many seconds have passed."""
        if not self._over:
            self._master.run_until(self.ready, self._master.deadline(timeout))

    def get(self, timeout: float | None = None) -> Any:
        """The result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        multiprocessing.TimeoutError
            It has not ended in time.
        CancelledError
            The pool was terminated before it ended.
        Exception
            What the task raised; of a map, what the first one of those that failed did.
        """
        self.wait(timeout)
        if not self._over:
            raise multiprocessing.TimeoutError(f"not ready after {timeout} s: call get() again")
        if self._error is not None:
            raise self._error
        return self._value

    def end(self, value: Any, error: BaseException | None = None) -> None:
        """Take the outcome; only the first one counts."""
        with self._master.lock:
            if self._claimed:
                return
            self._claimed = True
        self._value, self._error = value, error
        callback = self._callback if error is None else self._error_callback
        try:
            if callback is not None and not isinstance(error, CancelledError):
                callback(value if error is None else error)
        except Exception:
            logging.getLogger("taskfarm").exception("a callback of a pool raised")
        finally:
            self._over = True

    def abandon(self) -> None:
        """End it now; for a pool that is terminated."""
        self.end(None, CancelledError("the pool was terminated before this had ended"))


class ApplyResult(AsyncResult):
    """What one call will give."""

    def follow(self, future: Future[Any]) -> None:
        """Take the outcome of a future."""
        self._future = future
        future.add_done_callback(self._take)

    def _take(self, future: Any) -> None:
        if future.cancelled():
            return self.abandon()
        error = future.exception()
        self.end(None if error else future.result(), error)

    def abandon(self) -> None:
        self._future.cancel()
        super().abandon()


class MapResult(AsyncResult):
    """What a map will give: a list. It is the owner of the map's tasks, all of which are queued at once."""

    def queue(self, farm: Farm, function: Any, arguments: Arguments, chunk: int) -> None:
        """Queue all calls."""
        self._left = arguments.count
        self._failures: dict[int, BaseException] = {}
        function = self._master.functions.register(function)
        self._progress = MapProgress(
            function.name, self._left, number=next(self._master.map_numbers), drawn=self._left
        )
        self._master.maps.add(self._progress)
        with self._master.lock:
            self._value = [None] * self._left
            self._first = self._master.queue_calls(function, arguments, self, chunk)
        self._master.deliver_restored()
        farm._move_queued()

    def mark_running(self) -> None:
        """Some tasks are on their way to a worker."""

    def rng_position(self, count: int) -> tuple[int, int]:
        """The number of this map; all of it is queued at once."""
        return self._progress.number, 0

    def update_progress(self, ended: int, failed: int, again: int) -> None:
        """Some tasks have ended, and some will be tried again."""
        self._progress.ended += ended
        self._progress.failed += failed
        self._progress.retried += again

    def complete(self, completed: Completed, offset: int) -> None:
        """Take outcomes, in any order; the result is there when all are."""
        with self._master.lock:
            if self._claimed:
                return
            at = completed.first - self._first
            self._value[at : at + len(completed.values)] = completed.values
            self._failures.update({at + index: error for index, error in completed.failures.items()})
            self._left -= len(completed.values)
            if self._left:
                return
        error = self._failures[min(self._failures)] if self._failures else None
        self.end(None if error else self._value, error)

    def abandon(self) -> None:
        if not self._over:
            self._progress.closed = True
            self._master.cancel_all_of(self)
        super().abandon()


class LazyRun(MapRun):
    """A map that ends for who waits for it when it is closed by someone else."""

    def _available(self) -> bool:
        return self._closed or super()._available()

    def _consumed_all(self) -> bool:
        return self._closed or super()._consumed_all()


class IMapIterator(Iterator[Any]):
    """Results one by one; as what `multiprocessing.pool.Pool.imap` gives.

    What a task raises is raised in its place, and the results after it can be asked for.
    """

    def __init__(self, master: Master, run: LazyRun) -> None:
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
            Seconds to wait at most.

        Raises
        ------
        StopIteration
            There is none.
        multiprocessing.TimeoutError
            It has not come in time.
        CancelledError
            The pool was terminated.
        Exception
            What the task, or the iterable, raised.
        """
        if not self._items:
            self._draw(timeout)
        value, error = self._items.popleft()
        if error is not None:
            raise error
        return value

    def _draw(self, timeout: float | None) -> None:
        run, arguments = self._run, self._run._arguments
        run._deadline = self._master.deadline(timeout)
        try:
            completed = run._next()
        except TimeoutError:
            raise multiprocessing.TimeoutError(f"no result in {timeout} s: call next() again") from None
        if completed is not None:
            run._consumed += len(completed.values)
            failures = completed.failures
            self._items.extend((value, failures.get(at)) for at, value in enumerate(completed.values))
            return
        error, arguments.error = arguments.error, None
        run.close()
        raise error if error is not None else StopIteration

    def abandon(self) -> None:
        if not self._run._consumed_all():
            self._items.append((None, CancelledError("the pool was terminated before this had ended")))
            self._run.close()
