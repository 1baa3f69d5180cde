"""Futures compatible with `concurrent.futures`: a thread that waits for one runs the event loop."""

import concurrent.futures
import os
import reprlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, TypeVar
from weakref import ref

from taskfarm.errors import ResultNotLoadable
from taskfarm.job import asyncio_loop
from taskfarm.job.html import table
from taskfarm.master.master import Master
from taskfarm.protocol.describe import megabytes
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.outcomes import Completed, Packed
from taskfarm.protocol.references import Given, refer, to_give
from taskfarm.protocol.serialize import dumps

T = TypeVar("T")

_shortened = reprlib.Repr()
_shortened.maxother = _shortened.maxstring = 200

_condition: Any = threading.Condition()
# In a forked process, a thread that is not there may have held it.
os.register_at_fork(after_in_child=lambda: threading.Condition.__init__(_condition))


_TELL_DEPENDENTS: Any = object()
"""Stands among the callbacks of a future that calls wait for."""


class _LoopEvent(threading.Event):
    """The event that `concurrent.futures.wait` and `as_completed` wait for; waiting runs the event loop."""

    def __init__(self, master: Master) -> None:
        super().__init__()
        self._master = master

    def wait(self, timeout: float | None = None) -> bool:
        """Run the event loop until the event is set; False if the timeout passes first."""
        return self._master.run_until(self.is_set, self._master.deadline(timeout))


class _Waiters(list[Any]):
    """The waiters that `concurrent.futures` adds to a future; each gets a `_LoopEvent`."""

    def __init__(self, master: Master) -> None:
        super().__init__()
        self._master = master

    def append(self, waiter: Any) -> None:
        """Add a waiter and replace its event, which no thread waits for yet."""
        if not isinstance(waiter.event, _LoopEvent):
            waiter.event = _LoopEvent(self._master)
        super().append(waiter)


class _EndedFutures:
    """Collects futures that have ended, with the interface of a `concurrent.futures` waiter."""

    def __init__(self) -> None:
        self.event: threading.Event | None = None
        self.ended: deque[Any] = deque()
        self.add_result = self.add_exception = self.add_cancelled = self.ended.append


class Future(concurrent.futures.Future[T]):
    """The outcome of one task.

    It behaves as a `concurrent.futures.Future`. Two things differ inside: all futures share one condition,
    which makes them cheap, and a thread that waits for a future runs the event loop instead of sleeping.
    Among the arguments of another task of its farm, at any depth, it arrives there as the result.
    """

    journal_key = b""
    restored = False
    _given: "ref[Given] | None" = None
    _kept: Any = None

    # What most futures keep until they end costs nothing to make.
    _condition = _condition
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiting: _Waiters | None = None
    _done_callbacks: Any = ()
    task_id: int | None = None
    _unseen = 0

    def __init__(self, master: Master, farm: int = 0) -> None:
        self.master = master
        self.farm = farm

    def __reduce__(self) -> tuple[Any, ...]:
        return refer(self)

    def __repr__(self) -> str:
        """Show the state as `concurrent.futures` does, and the task."""
        shown = super().__repr__().replace(" returned Packed", "")
        return shown if self.task_id is None else f"{shown.removesuffix('>')} task={self.task_id}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the task, its state, and what it returned or raised."""
        rows: dict[str, object] = {"task": "none yet" if self.task_id is None else self.task_id}
        rows["state"] = self._state.lower().replace("_", " ")
        if self._state == FINISHED:
            if self.kept is not None:
                rows["result"] = f"{megabytes(self.kept.nbytes)}, kept by a worker"
            elif (error := self.exception()) is None:
                rows["result"] = _shortened.repr(self.result())
            else:
                rows["exception"] = summarize(error)
        return table("Future", rows)

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
            Maximum time to wait, in seconds.

        Raises
        ------
        Exception
            What the task raised, with the remote traceback as its cause.
        CancelledError
            The task was cancelled.
        TimeoutError
            The task has not ended in time.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._state == FINISHED and self._exception is None:
            result: Any = self._result
            if type(result) is not Packed:
                return result  # type: ignore[no-any-return]
            self._unpack(result, timeout)
            return self.result()
        self._look()
        if self._state != FINISHED or self._exception is None:
            return super().result(timeout=0)
        try:
            # Not in a method of the base class: its frames say nothing to the reader of a traceback.
            raise self._exception
        finally:
            # Otherwise the exception and its traceback would keep each other alive.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None; waits and raises as `result` does."""
        self._wait(timeout)
        if type(self._result) is Packed and self._result.kept is None:
            self._unpack(self._result)
        self._look()
        return super().exception(timeout=0)

    def _unpack(self, packed: Packed, timeout: float | None = None) -> None:
        """Unpickle the result for the first who asks for it."""
        value, error = None, None
        self._kept = packed.kept
        try:
            value = packed.load(self.task_id, timeout)
        except ResultNotLoadable as raised:
            error = raised.with_traceback(None)
        with self._condition:
            # Another thread may have been faster: all see the same object.
            if self._result is packed:
                self._result, self._exception = value, error

    def _look(self) -> None:
        """Note that the job looks at the exception, if there is one."""
        if self._unseen:
            self.master.unseen.discard(self._unseen)
            self._unseen = 0

    # These need no lock. An interruption while the standard library's hold it could leave it locked.

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        return self._state not in (PENDING, RUNNING)

    def running(self) -> bool:
        """Whether the task is on its way to a worker, and has not ended."""
        return self._state == RUNNING

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancel(self) -> bool:
        """Cancel the task; see `concurrent.futures.Future.cancel`.

        A task that runs in a child process (``isolate``, ``timeout``, ``memory``, ``max_tasks``) is ended
        by force. Any other task that is on its way to a worker, or running, goes on: the answer is False.
        """
        if self.task_id is None:
            return super().cancel()
        if not self.done():
            master, task = self.master, self.task_id
            if not (master.cancel(task, 1, joined=True) or master.cancel_running(task)):
                return False
            self._end_cancelled()
        return self.cancelled()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn` when the task has ended; see `concurrent.futures.Future.add_done_callback`.

        If MPI does not allow a background thread, an asyncio loop that is running in this thread runs the
        event loop of the farm from now on.

        A callback may submit tasks, and wait for results. If it adds a callback to a future that has ended,
        that one is called after it, not inside it, so that chains of callbacks may have any length.
        """
        master = self.master
        if not master.transport.threads:
            asyncio_loop.run_in_asyncio(master)
        with self._condition:
            if self._state in (PENDING, RUNNING):
                if self._done_callbacks:
                    self._done_callbacks.append(fn)
                else:
                    self._done_callbacks = [fn]
                return
        master.deliveries.call(fn, self)
        self._run_callbacks()

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            if callback is _TELL_DEPENDENTS:
                self.master.settle(self)
            else:
                self.master.deliveries.call(callback, self)
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        """Run the callbacks that are queued, unless this thread is running one."""
        master = self.master
        if master.delivering:
            return
        master.deliveries.deliver()
        if master.transport.inline:
            # In a serial run nobody else runs the tasks that they have submitted.
            master.run_until(lambda: master.idle)

    # What other tasks need of it

    @property
    def key(self) -> int:
        """Identifies it among the futures of its master: the id of its task if there is one."""
        return -1 - id(self) if self.task_id is None else self.task_id

    def failure(self) -> BaseException | None:
        """Why there is no result, after it has ended: CancelledError if it was cancelled."""
        if self.cancelled():
            return concurrent.futures.CancelledError()
        return self._exception

    def given(self) -> Given:
        """Its result for the tasks that need it, pickled; may call code of users.

        A result that nobody has asked for is passed on as it came.
        """
        if (kept := self.kept) is not None:
            return kept.given()  # type: ignore[no-any-return]
        given = None if self._given is None else self._given()
        if given is None:
            result: Any = self._result
            given = to_give(result.blob if type(result) is Packed else dumps(result))
            self._given = ref(given)
        return given

    def note_seen(self) -> None:
        """Note that tasks which need it tell the job of its failure."""
        self._look()

    def call_when_ended(self) -> None:
        """Make it call `Master.settle` when it has ended; at once if it has."""
        with self._condition:
            if self._state in (PENDING, RUNNING):
                if _TELL_DEPENDENTS not in self._done_callbacks[:1]:
                    self._done_callbacks = [_TELL_DEPENDENTS, *self._done_callbacks]
                return
        if (kept := self.kept) is not None and kept.is_lost:
            # It has the same key.
            kept.call_when_ended()
        else:
            self.master.settle(self)

    @property
    def kept(self) -> Any:
        """If a worker keeps its result, what finds it."""
        return self._result.kept if type(self._result) is Packed else self._kept

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Note the key of its call in the journal, and whether its result is from there."""
        self.journal_key, self.restored = key, restored

    def mark_running(self) -> None:
        """Mark the task as running: it is on its way to a worker."""
        if self._state == PENDING:
            self._state = RUNNING

    def rng_position(self, count: int) -> tuple[int, int]:
        """Return (0, 0), which is not used: single calls are numbered together."""
        return 0, 0

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Do nothing: a future has no progress."""

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Set the result at `offset`, if nobody has to be told of it: neither callbacks nor waiters."""
        with self._condition._lock:
            if self._done_callbacks or self._waiting or self._state not in (PENDING, RUNNING):
                return False
            self._result = completed.values[offset]
            self._state = FINISHED
        return True

    def complete(self, completed: Completed, offset: int = 0) -> None:
        """Set the outcome at `offset`, unless the user has set a result or an exception already."""
        if self._state not in (PENDING, RUNNING):
            # An error here would be raised in the thread that runs the event loop, and stop the delivery
            # of other outcomes.
            return
        error = completed.failures.get(offset) if completed.failures else None
        if error is not None:
            if issubclass(type(error), concurrent.futures.CancelledError):
                self._end_cancelled()
                return
            self._unseen = self.master.unseen.add(0, error)
        self._finish(completed.values[offset], error)

    def _finish(self, value: T, error: BaseException | None) -> None:
        """Do what `set_result` does, without notifying the condition: no thread sleeps on it."""
        # The condition's own methods would only add calls.
        with self._condition._lock:
            self._result = value
            self._exception = error
            self._state = FINISHED
            for waiter in self._waiting or ():
                (waiter.add_result if error is None else waiter.add_exception)(self)
        if self._done_callbacks:
            self._invoke_callbacks()

    def _end_cancelled(self) -> None:
        with self._condition:
            if self._state == RUNNING:
                # Its worker was lost, and the task was queued again.
                self._state = PENDING
        super().cancel()
        # No worker will take the task and so notify the waiters.
        self.set_running_or_notify_cancel()

    def _wait(self, timeout: float | None) -> None:
        if self._state in (PENDING, RUNNING):
            self.master.run_until(self.done, self.master.deadline(timeout))


def as_completed(
    fs: Iterable[concurrent.futures.Future[T]], timeout: float | None = None
) -> Iterator[concurrent.futures.Future[T]]:
    """Yield futures as they end; see `concurrent.futures.as_completed`. Time is that of the farm's clock.

    Parameters
    ----------
    fs : iterable of Future
        The futures; each is yielded once.
    timeout : float, optional
        Seconds from this call after which TimeoutError is raised.
    """
    unfinished = set(fs)
    masters = {future.master for future in unfinished if isinstance(future, Future)}
    if len(masters) != 1:
        iterator = concurrent.futures.as_completed(unfinished, timeout)
        del unfinished  # a yielded future can be freed as soon as the caller drops it
        yield from iterator
        return
    master = masters.pop()
    deadline = master.deadline(timeout)
    total = len(unfinished)
    waiter: Any = _EndedFutures()
    future: concurrent.futures.Future[T] | None
    for future in unfinished:
        with future._condition:
            if future._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                waiter.ended.append(future)
            else:
                future._waiters.append(waiter)
    future = None  # a yielded future can be freed as soon as the caller drops it
    try:
        while unfinished:
            if not master.run_until(lambda: bool(waiter.ended), deadline):
                raise TimeoutError(f"{len(unfinished)} (of {total}) futures unfinished")
            while waiter.ended:
                unfinished.discard(waiter.ended[0])
                yield waiter.ended.popleft()
    finally:
        for future in unfinished:
            with future._condition:
                if waiter in future._waiters:
                    future._waiters.remove(waiter)


def wait(
    fs: Iterable[concurrent.futures.Future[T]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> concurrent.futures._base.DoneAndNotDoneFutures[T]:
    """Wait for futures; see `concurrent.futures.wait`.

    Parameters
    ----------
    fs : iterable of Future
        The futures.
    timeout : float, optional
        Maximum time to wait, in seconds.
    return_when : str
        ``ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.
    """
    return concurrent.futures.wait(fs, timeout, return_when)
