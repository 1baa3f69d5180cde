"""Futures of calls that a task has submitted, for that task."""

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from taskfarm import interrupts
from taskfarm.errors import UsageError
from taskfarm.protocol.dependency_failures import NoResult
from taskfarm.protocol.joined import placeholder
from taskfarm.protocol.messages import NO_BLOB
from taskfarm.protocol.references import refer

if TYPE_CHECKING:
    from taskfarm.worker.spawning import Spawner

T = TypeVar("T")

_RETURNED: ContextVar[list[int] | None] = ContextVar("taskfarm_returned", default=None)
"""While a result is pickled: the numbers of the futures in it."""

_FOUND: ContextVar[list[Any] | None] = ContextVar("taskfarm_found", default=None)
"""While somebody looks for them: the futures in a result."""


class _Event(threading.Event):
    """The event that `concurrent.futures.wait` and `as_completed` wait for."""

    def __init__(self, spawner: "Spawner") -> None:
        super().__init__()
        self._spawner = spawner

    def wait(self, timeout: float | None = None) -> bool:
        """Run other tasks until the event is set; False if the timeout passes first."""
        return self._spawner.wait_until(self.is_set, timeout)


class _Waiters(list[Any]):
    """The waiters that `concurrent.futures` adds to a future; each gets an `_Event`."""

    def __init__(self, future: "ChildFuture[Any]") -> None:
        super().__init__()
        self._future = future

    def append(self, waiter: Any) -> None:
        """Add a waiter and replace its event, which no thread waits for yet."""
        self._future.spawner.want(self._future)
        if not isinstance(waiter.event, _Event):
            waiter.event = _Event(self._future.spawner)
        super().append(waiter)


class ChildFuture(concurrent.futures.Future[T]):
    """The outcome of a call that a task has submitted.

    While the task waits for it, its worker runs tasks that this task, or one of those, has submitted. A
    task may return it, also inside of lists, tuples, dictionaries and other objects: then the task's own
    result has what it stands for in its place.
    """

    def __init__(self, spawner: "Spawner", number: int, name: str) -> None:
        super().__init__()
        self.spawner = spawner
        self.number = number
        self.name = name
        self.on_error: Any = "raise"
        self.context = spawner.context
        self._wanted = False
        self._waiting: _Waiters | None = None

    def __repr__(self) -> str:
        """Show the state, and the function."""
        return f"<Future of {self.name}: {self._state.lower().replace('_', ' ')}>"

    @property
    def _waiters(self) -> list[Any]:
        if self._waiting is None:
            self._waiting = _Waiters(self)
        return self._waiting

    @_waiters.setter
    def _waiters(self, value: list[Any]) -> None:
        """Ignore what the base class sets."""

    def __reduce__(self) -> tuple[Any, ...]:
        returned = _RETURNED.get()
        if (found := _FOUND.get()) is not None:
            found.append(self)
            return placeholder, (self.number,)
        if not self.may_join:
            return _given, (self._passed_on(),)
        if returned is None:
            return refer(self)
        returned.append(self.number)
        return placeholder, (self.number,)

    @property
    def may_join(self) -> bool:
        """Whether rank 0 puts the result in the place of this; otherwise it comes here first."""
        return self._state == PENDING and not self._wanted and self.on_error == "raise"

    def _passed_on(self) -> T:
        """The result, to be pickled in the place of this."""
        # What runs while this waits is pickled for itself.
        token = _RETURNED.set(None)
        try:
            return self.result()
        except BaseException as error:
            if interrupts.is_interrupt(error) or self._state == PENDING:
                raise
            raise NoResult(error, self.name) from error
        finally:
            _RETURNED.reset(token)

    @property
    def key(self) -> int:
        """What a pickle refers to it by."""
        return self.number

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        if self._state == PENDING:
            self.spawner.want(self)
            self.spawner.wait_until(lambda: self._state != PENDING, 0.0)
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def running(self) -> bool:
        """Return False: where the call is, is not known here."""
        return False

    def cancel(self) -> bool:
        """Cancel the call if it is still in the queue; see `concurrent.futures.Future.cancel`."""
        if self._state == PENDING:
            self.spawner.withdraw(self)
        return self.cancelled()

    def result(self, timeout: float | None = None) -> T:
        """The result; see `concurrent.futures.Future.result`. Meanwhile its worker runs related tasks."""
        self._wait(timeout)
        error = self._exception
        if self._state != FINISHED or error is None:
            return super().result(timeout=0)
        try:
            raise error
        finally:
            del self, error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception; see `concurrent.futures.Future.exception`."""
        self._wait(timeout)
        return super().exception(timeout=0)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn` in this task when the call has ended, as soon as the task waits for anything."""
        self.spawner.want(self)
        super().add_done_callback(fn)

    def _wait(self, timeout: float | None) -> None:
        if self._state == PENDING:
            if not self.spawner.has(self.number):
                raise UsageError(
                    "the task that has submitted this call has ended: use its future only in that task"
                )
            self.spawner.want(self)
            self.spawner.wait_until(lambda: self._state != PENDING, timeout)

    def complete(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome; of a call with ``on_error``, as that says."""
        if self._state != PENDING:
            return
        if error is not None and self.on_error != "raise":
            value, error = _replaced(error, self.on_error)
        if isinstance(error, CancelledError):
            self.end_cancelled()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known here."""
        return bool(self._state != PENDING)

    def fail(self, error: BaseException) -> None:
        """Set the exception of a call that could not be sent."""
        self._state = PENDING
        self.complete(None, error)

    def end_cancelled(self) -> None:
        """Mark it as cancelled."""
        if super().cancel():
            self.set_running_or_notify_cancel()


def _given(value: Any) -> Any:
    return value


def _replaced(error: BaseException, on_error: Any) -> tuple[Any, BaseException | None]:
    """The result, or the exception, in the place of an exception."""
    if not callable(on_error):
        return error, None
    try:
        return on_error(error), None
    except Exception as raised:
        return None, raised


def pickled_with_futures(result: Any, pickle_it: Callable[[Any], Any]) -> tuple[Any, list[int]]:
    """Pickle a result that may contain futures; also returns the numbers of those that have not ended."""
    if type(result) is ChildFuture and result.may_join:
        return NO_BLOB, [result.number]
    numbers: list[int] = []
    token = _RETURNED.set(numbers)
    try:
        return pickle_it(result), list(dict.fromkeys(numbers))
    finally:
        _RETURNED.reset(token)


def without_futures(result: Any, pickle_it: Callable[[Any], Any], load: Callable[[Any], Any]) -> Any:
    """A result with what its futures stand for in their places; waits for them."""
    found: list[ChildFuture[Any]] = []
    if type(result) is ChildFuture:
        return result.result()
    token = _FOUND.set(found)
    try:
        pickled_with_futures(result, pickle_it)
    finally:
        _FOUND.reset(token)
    if not found:
        return result
    for future in found:
        future.result()
    return load(pickled_with_futures(result, pickle_it)[0])
