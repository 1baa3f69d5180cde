"""Futures of the standard library's kind whose waiting thread drives the farm."""

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

from taskfarm.job import asyncio_loop
from taskfarm.master.master import Master
from taskfarm.protocol.outcomes import Completed

T = TypeVar("T")

_condition = threading.Condition()


class _News(threading.Event):
    """What `concurrent.futures.wait` and `as_completed` wait for; the thread that waits turns the farm."""

    def __init__(self, master: Master) -> None:
        super().__init__()
        self._master = master

    def wait(self, timeout: float | None = None) -> bool:
        """Turn the farm until there is news."""
        return self._master.run_until(self.is_set, self._master.deadline(timeout))


class _Waiters(list[Any]):
    """Who waits for a future, through functions of the standard library; they are given `_News`."""

    def __init__(self, master: Master) -> None:
        super().__init__()
        self._master = master

    def append(self, waiter: Any) -> None:
        """Add one; its event is not in use yet."""
        if not isinstance(waiter.event, _News):
            waiter.event = _News(self._master)
        super().append(waiter)


class _Ended:
    """Takes futures that have ended, as the waiters of the standard library do."""

    def __init__(self) -> None:
        self.event: threading.Event | None = None
        self.ended: deque[Any] = deque()
        self.add_result = self.add_exception = self.add_cancelled = self.ended.append


class Future(concurrent.futures.Future[T]):
    """The outcome of one task.

    It is a `concurrent.futures.Future` in every respect. Two things differ inside: all futures share
    one condition, which makes them light; and who waits does not sleep but turns the farm until the
    outcome is there.
    """

    def __init__(self, master: Master) -> None:
        self._condition = _condition
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiting: _Waiters | None = None
        self._done_callbacks: list[Any] = []
        self.master = master
        self.task_id: int | None = None

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._waiting is None:
            self._waiting = _Waiters(self.master)
        return self._waiting

    def result(self, timeout: float | None = None) -> T:
        """The task's result; see `concurrent.futures.Future.result`.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        Exception
            What the task raised, with the remote traceback as its cause.
        CancelledError
            The task was cancelled.
        TimeoutError
            It has not ended in time.
        """
        self._wait(timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result  # type: ignore[return-value]
        return super().result(timeout=0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None; waits and raises as `result` does."""
        self._wait(timeout)
        return super().exception(timeout=0)

    def cancel(self) -> bool:
        """Cancel the task if no worker has it yet; see `concurrent.futures.Future.cancel`."""
        if self.task_id is None:
            return super().cancel()
        if not self.done():
            if not self.master.cancel(self.task_id, 1):
                return False
            self._end_cancelled()
        return self.cancelled()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn` when the task has ended; see `concurrent.futures.Future.add_done_callback`.

        Where no thread may turn the farm in the background, an event loop of asyncio that runs in this
        thread does so from now on.
        """
        if not self.master.transport.threads:
            asyncio_loop.run_in_asyncio(self.master)
        super().add_done_callback(fn)

    def mark_running(self) -> None:
        """Mark the task as running: it is on its way to a worker."""
        if self._state == PENDING:
            self._state = RUNNING

    def rng_position(self, count: int) -> tuple[int, int]:
        """It is queued with others; they are numbered together."""
        return 0, 0

    def update_progress(self, ended: int, failed: int, again: int) -> None:
        """It is told so by its outcome."""

    def complete(self, completed: Completed, offset: int = 0) -> None:
        """Take the outcome at `offset`; a future that has ended already, by hand, stays as it is."""
        if self._state not in (PENDING, RUNNING):
            # An error here would meet whoever turns the farm, and keep the outcomes of others from them.
            return
        error = completed.failures.get(offset) if completed.failures else None
        if isinstance(error, concurrent.futures.CancelledError):
            self._end_cancelled()
        elif error is not None:
            self.set_exception(error)
        else:
            self._succeed(completed.values[offset])

    def _succeed(self, value: T) -> None:
        """Do what `set_result` does; nobody sleeps on the condition, so nobody need be woken."""
        with self._condition:
            self._result = value
            self._state = FINISHED
            for waiter in self._waiting or ():
                waiter.add_result(self)
        if self._done_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def _end_cancelled(self) -> None:
        with self._condition:
            if self._state == RUNNING:
                # It was at a worker that is lost, and has been queued again since.
                self._state = PENDING
        super().cancel()
        # Nobody will pick the task up to notice, so those who wait are told here.
        self.set_running_or_notify_cancel()

    def _wait(self, timeout: float | None) -> None:
        if self._state in (PENDING, RUNNING):
            self.master.run_until(self.done, self.master.deadline(timeout))


def as_completed(
    fs: Iterable[concurrent.futures.Future[T]], timeout: float | None = None
) -> Iterator[concurrent.futures.Future[T]]:
    """Yield futures as they end; as `concurrent.futures.as_completed`, by the farm's clock.

    Parameters
    ----------
    fs : iterable of Future
        Futures; each is yielded once.
    timeout : float, optional
        Seconds, from this call on, after which TimeoutError is raised.
    """
    left = set(fs)
    masters = {future.master for future in left if isinstance(future, Future)}
    if len(masters) != 1:
        others = concurrent.futures.as_completed(left, timeout)
        del left  # A future may go when its receiver has done with it.
        yield from others
        return
    master = masters.pop()
    deadline, total = master.deadline(timeout), len(left)
    news: Any = _Ended()
    future: concurrent.futures.Future[T] | None
    for future in left:
        with future._condition:
            if future._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                news.ended.append(future)
            else:
                future._waiters.append(news)
    future = None  # Each may go when its receiver has done with it.
    try:
        while left:
            if not master.run_until(lambda: bool(news.ended), deadline):
                raise TimeoutError(f"{len(left)} (of {total}) futures unfinished")
            while news.ended:
                left.discard(news.ended[0])
                yield news.ended.popleft()
    finally:
        for future in left:
            with future._condition:
                if news in future._waiters:
                    future._waiters.remove(news)


def wait(
    fs: Iterable[concurrent.futures.Future[T]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> concurrent.futures._base.DoneAndNotDoneFutures[T]:
    """Wait for futures; it is `concurrent.futures.wait`.

    Parameters
    ----------
    fs : iterable of Future
        Futures.
    timeout : float, optional
        Seconds to wait at most.
    return_when : str
        ``ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.
    """
    return concurrent.futures.wait(fs, timeout, return_when)
