"""Futures of the standard library's kind whose waiting thread drives the farm."""

import concurrent.futures
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

from taskfarm.master import Master
from taskfarm.outcomes import Settled

T = TypeVar("T")

_condition = threading.Condition()


class Future(concurrent.futures.Future[T]):
    """The outcome of one task.

    It is a `concurrent.futures.Future` in every respect. Two things differ inside: all futures share
    one condition, which makes them light; and `result` and `exception` do not sleep but turn the
    farm until the outcome is there.
    """

    def __init__(self, master: Master) -> None:
        self._condition = _condition
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.master = master
        self.task_id: int | None = None

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
        if not self.done():
            if self.task_id is None or not self.master.cancel(self.task_id, 1):
                return False
            self._end_cancelled()
        return self.cancelled()

    def start(self) -> None:
        """Mark the task as running: it is on its way to a worker."""
        self._state = RUNNING

    def number(self, count: int) -> tuple[int, int]:
        """It is queued with others; they are numbered together."""
        return 0, 0

    def advance(self, ended: int, failed: int, again: int) -> None:
        """It is told so by its outcome."""

    def settle(self, settled: Settled, offset: int = 0) -> None:
        """Take the outcome at `offset`."""
        error = settled.failures.get(offset) if settled.failures else None
        if isinstance(error, concurrent.futures.CancelledError):
            self._end_cancelled()
        elif error is not None:
            self.set_exception(error)
        else:
            self._succeed(settled.values[offset])

    def _succeed(self, value: T) -> None:
        """Do what `set_result` does; nobody sleeps on the condition, so nobody need be woken."""
        with self._condition:
            if self._state not in (PENDING, RUNNING):
                raise InvalidStateError(f"{self._state}: {self!r}")
            self._result = value
            self._state = FINISHED
            for waiter in self._waiters:
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
            self.master.drive(self.done, self.master.deadline(timeout))


def _masters(futures: Iterable[concurrent.futures.Future[Any]]) -> set[Master]:
    return {future.master for future in futures if isinstance(future, Future)}


def as_completed(
    fs: Iterable[concurrent.futures.Future[T]], timeout: float | None = None
) -> Iterator[concurrent.futures.Future[T]]:
    """Yield futures as they end; as `concurrent.futures.as_completed`, and turns the farm meanwhile.

    Parameters
    ----------
    fs : iterable of Future
        Futures; each is yielded once.
    timeout : float, optional
        Seconds, from this call on, after which TimeoutError is raised.
    """
    futures = set(fs)
    masters = _masters(futures)
    if len(masters) != 1:
        yield from concurrent.futures.as_completed(futures, timeout)
        return
    master = masters.pop()
    deadline = master.deadline(timeout)
    ended: deque[concurrent.futures.Future[T]] = deque()
    left = len(futures)
    for future in futures:
        future.add_done_callback(ended.append)
    del futures
    while left:
        if not master.drive(lambda: bool(ended), deadline):
            raise TimeoutError(f"{left} futures unfinished")
        while ended:
            left -= 1
            yield ended.popleft()


def wait(
    fs: Iterable[concurrent.futures.Future[T]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> concurrent.futures._base.DoneAndNotDoneFutures[T]:
    """Wait for futures; as `concurrent.futures.wait`, and turns the farm meanwhile.

    Parameters
    ----------
    fs : iterable of Future
        Futures.
    timeout : float, optional
        Seconds to wait at most.
    return_when : str
        ``ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.
    """
    futures = set(fs)
    masters = _masters(futures)
    if len(masters) != 1 or return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        return concurrent.futures.wait(futures, timeout, return_when)
    master = masters.pop()
    deadline = master.deadline(timeout)
    news: deque[concurrent.futures.Future[T]] = deque()
    left = len(futures)

    def enough() -> bool:
        nonlocal left
        while news:
            future = news.popleft()
            left -= 1
            if return_when == FIRST_COMPLETED:
                return True
            if return_when == FIRST_EXCEPTION and not future.cancelled() and future.exception():
                return True
        return not left

    for future in futures:
        future.add_done_callback(news.append)
    master.drive(enough, deadline)
    done = {future for future in futures if future._state in (CANCELLED_AND_NOTIFIED, FINISHED)}
    return concurrent.futures._base.DoneAndNotDoneFutures(done, futures - done)
