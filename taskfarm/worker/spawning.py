"""What a task uses to submit tasks: the farm as it looks from inside a task, and the futures that it gives."""

import concurrent.futures
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextvars import ContextVar
from itertools import islice
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from taskfarm.errors import ResultNotLoadable, UsageError, wrap
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.failures import restore_exception, summarize
from taskfarm.protocol.joined import placeholder
from taskfarm.protocol.messages import (
    NO_BLOB,
    DefineNames,
    NewFunction,
    Settled,
    Spawn,
    ToMaster,
    Withdraw,
    Withdrawn,
)
from taskfarm.protocol.outcomes import Completed, apply_on_error
from taskfarm.protocol.reduction import NO_INITIAL, Reduction, call
from taskfarm.protocol.references import refer
from taskfarm.protocol.serialize import dumps, load_plain
from taskfarm.protocol.sides import of_main
from taskfarm.protocol.snapshot import is_importable
from taskfarm.protocol.task_base import is_task, policy_of
from taskfarm.worker.context import IN_TASK, TaskContext

if TYPE_CHECKING:
    from taskfarm.worker.runner import Runner

T = TypeVar("T")

MAX_DEPTH = 200
"""Tasks that may wait inside each other on one worker."""

WINDOW = 256
"""Calls of a map in a task that are submitted before their results are consumed."""

SPAWNED_TOGETHER = 64
"""Most calls of a map that travel in one message."""

_RETURNED: ContextVar[list[int] | None] = ContextVar("taskfarm_returned", default=None)
"""While a result is pickled: the numbers of the futures in it."""


class Upstream(ABC):
    """The way from a task to rank 0, and what its process does while the task waits."""

    depth = 0
    """Tasks that wait inside each other on this worker."""

    @abstractmethod
    def send(self, message: ToMaster) -> None:
        """Send a message to rank 0."""

    @abstractmethod
    def wait(
        self,
        spawner: "Spawner",
        done: Callable[[], bool],
        deadline: float | None,
        wanted: list[tuple[int, int]],
    ) -> bool:
        """Wait until `done()`, with the outcomes of the calls `wanted`; False if the deadline passes first."""

    @abstractmethod
    def ask(self, spawner: "Spawner", done: Callable[[], bool]) -> None:
        """Wait for an answer of rank 0, and run nothing."""


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

    While the task waits for it, its worker runs tasks that this task, or one of those, has submitted. A task
    may return it, also inside of lists, tuples, dictionaries and other objects: then the task's own result
    has what it stands for in its place.
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
        if self._wanted or self._state != PENDING:
            return _given, (self.result(),)
        if returned is None:
            return refer(self)
        returned.append(self.number)
        return placeholder, (self.number,)

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
            self.spawner.want(self)
            self.spawner.wait_until(lambda: self._state != PENDING, timeout)

    def complete(self, completed: Completed, offset: int) -> None:
        """Set the outcome at `offset`."""
        if self._state != PENDING:
            return
        if self.on_error != "raise":
            completed = apply_on_error(completed, offset, self.on_error)
        error = completed.failures.get(offset)
        if isinstance(error, CancelledError):
            self.end_cancelled()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(completed.values[offset])

    def end_cancelled(self) -> None:
        """Mark it as cancelled."""
        if super().cancel():
            self.set_running_or_notify_cancel()


def _given(value: Any) -> Any:
    return value


class Spawner:
    """The farm of a task, for the task itself.

    Parameters
    ----------
    runner : Runner
        Runs the task.
    upstream : Upstream
        The way to rank 0.
    """

    def __init__(self, runner: "Runner", upstream: Upstream) -> None:
        self._runner = runner
        self._upstream = upstream
        # Processes of one worker must not use the same numbers.
        self._number = secrets.randbits(60)
        self._numbered: dict[int, tuple[Any, int]] = {}
        self._pending: dict[int, ChildFuture[Any]] = {}
        self._wanted: list[int] = []
        self._arrived: dict[TaskContext, list[Settled]] = {}
        self._withdrawn: deque[Withdrawn] = deque()

    @property
    def closed(self) -> bool:
        """Return False: the farm lasts as long as its task."""
        return False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ChildFuture[T]:
        """Queue a call; see `taskfarm.Farm.submit`."""
        context = self._context()
        arguments = Arguments.from_call(args, kwargs)
        stream = context.next_stream(of_map=False)
        return self._spawn(fn, arguments, *stream)[0]

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
    ) -> Iterator[Any]:
        """Call a function for all items of some iterables; see `taskfarm.Farm.map`."""
        rows = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        return self._map(
            fn, rows, len(iterables) == 1, timeout, buffersize, unordered, with_arguments
        )

    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
    ) -> Iterator[Any]:
        """Call a function with each tuple as its arguments; otherwise like `map`."""
        return self._map(fn, map(tuple, tuples), False, timeout, buffersize, unordered, with_arguments)

    def reduce(
        self,
        fn: Callable[..., Any],
        operation: Callable[[Any, Any], Any],
        *iterables: Iterable[Any],
        initial: Any = NO_INITIAL,
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Any:
        """Combine the results of a map to one value, in the order of `taskfarm.Farm.reduce`."""
        reduction = Reduction(operation)
        results = self.map(fn, *iterables, timeout=timeout)
        position = 0
        while values := list(islice(results, SPAWNED_TOGETHER)):
            reduction.extend(position, values)
            position += len(values)
        if not position:
            if initial is NO_INITIAL:
                raise TypeError("reduce() of empty iterable with no initial value: pass initial=")
            return initial
        value = reduction.result()
        return value if initial is NO_INITIAL else call(operation, initial, value)

    def map_array(self, *_: Any, **__: Any) -> Any:
        """Raise UsageError: arrays are gathered by the job only."""
        raise UsageError("a task cannot use map_array: call it in the job, or use map in the task")

    def over(self, *_: Any, **__: Any) -> Any:
        """Raise UsageError: arrays are gathered by the job only."""
        raise UsageError("a task cannot use over: call it in the job, or use map in the task")

    def _map(
        self,
        fn: Any,
        rows: Iterator[Any],
        single: bool,
        timeout: float | None,
        buffersize: int | None,
        unordered: bool,
        with_arguments: bool,
    ) -> Iterator[Any]:
        context = self._context()
        stream = context.next_stream(of_map=True)[0]
        run = _Map(self, fn, rows, single, stream, buffersize or WINDOW)
        run.draw()
        return run.results(None if timeout is None else time.monotonic() + timeout, unordered, with_arguments)

    def _context(self) -> TaskContext:
        """The context of the task that runs.

        Raises
        ------
        UsageError
            This is another thread than the one that runs the task.
        """
        self._runner.nesting.check_thread()
        return self.context

    def _spawn(
        self, fn: Any, arguments: Arguments, stream: tuple[int, ...], index: int
    ) -> list[ChildFuture[Any]]:
        """Send calls to rank 0; returns their futures."""
        context = self._context()
        name, count = name_of(fn), arguments.count
        first = self._number
        self._number += count
        futures: list[ChildFuture[Any]] = [ChildFuture(self, first + at, name) for at in range(count)]
        on_error = policy_of(fn).get("on_error", "raise")
        for future in futures:
            future.on_error = on_error
        function, new = self._function(fn, name)
        part = context.part
        assert part is not None
        calls = arguments.slice(0, count)
        futures_in = {offset: list(found) for offset, found in arguments.futures.items()}
        self._pending.update((future.number, future) for future in futures)
        self._upstream.send(
            Spawn(context.task, part.source, first, count, function, calls, stream, index, new, futures_in)
        )
        context.spawned.append((first, count))
        for offset, error in arguments.errors.items():
            self.withdraw(futures[offset])
            futures[offset]._state = PENDING
            futures[offset].complete(Completed.failed(0, error), 0)
        return futures

    def _function(self, fn: Any, name: str) -> tuple[int, NewFunction | None]:
        """The number of a function, and what rank 0 must be told of it."""
        known = self._numbered.get(id(fn))
        if known is not None and known[0] is fn:
            return known[1], None
        by_name = (type(fn) is FunctionType or is_task(fn)) and _has_name(fn)
        number = self._number
        self._number += 1
        options = {key: value for key, value in policy_of(fn).items() if key not in ("on_error", "key")}
        if by_name:
            self._numbered[id(fn)] = (fn, number)
        return number, NewFunction(name, dumps(fn), options, by_name)

    # Waiting

    def want(self, future: ChildFuture[Any]) -> None:
        """Ask for the outcome of a call, the next time that its task waits."""
        if not future._wanted and future.number in self._pending:
            future._wanted = True
            self._wanted.append(future.number)

    def wait_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Run tasks that this one, or one of those, has submitted until `done()`; False after `timeout`."""
        if done():
            return True
        self._runner.nesting.check_thread()
        if self._upstream.depth >= MAX_DEPTH:
            raise UsageError(
                f"{MAX_DEPTH} tasks wait inside each other on this worker: return the future instead of "
                "its result(), and no worker has to wait"
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._upstream.wait(self, done, deadline, self.take_wanted())

    def take_wanted(self) -> list[tuple[int, int]]:
        """The calls whose outcomes are wanted since the last time: first number and number of each run."""
        runs: list[tuple[int, int]] = []
        for number in sorted(self._wanted):
            if runs and sum(runs[-1]) == number:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        self._wanted.clear()
        return runs

    def withdraw(self, future: ChildFuture[Any]) -> None:
        """Cancel a call if it is still in the queue."""
        self._runner.nesting.check_thread()
        self._upstream.send(Withdraw(self.context.task, future.number, 1))
        answered = len(self._withdrawn)
        self._upstream.ask(self, lambda: len(self._withdrawn) > answered)
        for number, count in self._withdrawn.pop().calls:
            for one in range(number, number + count):
                if (found := self._pending.pop(one, None)) is not None:
                    found.end_cancelled()

    @property
    def context(self) -> TaskContext:
        """The context of the task that calls this."""
        context = IN_TASK.get()
        assert context is not None
        return context

    def has(self, number: int) -> bool:
        """Whether a task of this process waits for the call with this number."""
        return number in self._pending

    def take(self, message: Settled | Withdrawn) -> None:
        """Take what rank 0 has sent; `settle` looks at it, when the task that it is for can go on."""
        if isinstance(message, Withdrawn):
            self._withdrawn.append(message)
            return
        self._runner.prepare(DefineNames(message.definitions))
        future = self._pending.get(message.first)
        if future is not None:
            self._arrived.setdefault(future.context, []).append(message)

    @property
    def arrived(self) -> bool:
        """Whether something has arrived for the task that calls this."""
        return self.context in self._arrived

    def settle(self) -> None:
        """Complete the futures of the task that calls this, as far as their outcomes have arrived."""
        for message in self._arrived.pop(self.context, ()):
            completed = self._load(message)
            for offset in range(message.count):
                if (future := self._pending.pop(message.first + offset, None)) is not None:
                    future.complete(completed, offset)

    def _load(self, message: Settled) -> Completed:
        """Unpickle outcomes; a result that cannot be unpickled fails only its own call."""
        failures: dict[int, BaseException] = {
            # The remote traceback names the call; a note would be repeated on each level.
            offset: restore_exception(failure._replace(note=""))
            for offset, failure in message.failures.items()
        }
        if isinstance(message.values, bytes):
            return Completed(message.first, load_plain(message.values), failures, 0)
        values: list[Any] = []
        for offset, blob in enumerate(message.values):
            value = None
            if offset not in failures:
                try:
                    value = self._runner.nesting.load(blob)
                except Exception as error:
                    text = f"the result of a call cannot be unpickled by the task that waits: {summarize(error)}"
                    failures[offset] = wrap(ResultNotLoadable, error, text)
            values.append(value)
        return Completed(message.first, values, failures, 0)

    def end_tasks(self, spawned: list[tuple[int, int]]) -> None:
        """Forget what tasks have submitted that have ended."""
        for first, count in spawned:
            for number in range(first, first + count):
                if (future := self._pending.pop(number, None)) is not None:
                    self._arrived.pop(future.context, None)


class _Map:
    """A map in a task."""

    def __init__(
        self, spawner: Spawner, fn: Any, rows: Iterator[Any], single: bool, stream: tuple[int, ...], ahead: int
    ) -> None:
        self._spawner, self._fn, self._rows, self._single = spawner, fn, rows, single
        self._stream, self._ahead = stream, ahead
        self._drawn = 0
        self._waiting: deque[tuple[ChildFuture[Any], Any]] = deque()
        self._error: BaseException | None = None
        self._exhausted = False

    def draw(self) -> None:
        """Submit calls until enough are ahead of the caller."""
        while not self._exhausted and (room := self._ahead - len(self._waiting)) > 0:
            items: list[Any] = []
            try:
                items.extend(islice(self._rows, min(room, SPAWNED_TOGETHER)))
                self._exhausted = not items
            except BaseException as error:
                self._exhausted, self._error = True, error
            if not items:
                return
            make = Arguments.from_columns if self._single else Arguments.from_rows
            arguments = make([items] if self._single else items)
            futures = self._spawner._spawn(self._fn, arguments, self._stream, self._drawn)
            self._drawn += len(futures)
            for future in futures:
                self._spawner.want(future)
            self._waiting.extend(zip(futures, items, strict=True))

    def results(self, deadline: float | None, unordered: bool, with_arguments: bool) -> Iterator[Any]:
        """The results, in order or as they arrive."""
        try:
            while self._waiting:
                at = self._next(deadline, unordered)
                self._waiting.rotate(-at)
                future, item = self._waiting.popleft()
                self._waiting.rotate(at)
                self.draw()
                result = future.result()
                yield (item, result) if with_arguments else result
            if self._error is not None:
                raise self._error
        finally:
            for future, _ in self._waiting:
                future.cancel()

    def _next(self, deadline: float | None, unordered: bool) -> int:
        """The place of the next future that has ended."""
        looked = list(self._waiting) if unordered else [self._waiting[0]]

        def ended() -> bool:
            return any(future._state != PENDING for future, _ in looked)

        timeout = None if deadline is None else deadline - time.monotonic()
        if not self._spawner.wait_until(ended, timeout):
            raise TimeoutError("the next result of the map did not arrive in time")
        return next(at for at, (future, _) in enumerate(looked) if future._state != PENDING)


def _has_name(fn: Any) -> bool:
    """Whether a function or task is found under its name in its module."""
    if fn.__module__ != "__main__":
        return is_importable(fn)
    try:
        return of_main(fn.__qualname__) is fn
    except AttributeError:
        return False


def pickled_with_futures(result: Any, pickle_it: Callable[[Any], Any]) -> tuple[Any, list[int]]:
    """Pickle a result that may contain futures; also returns the numbers of those that have not ended."""
    if type(result) is ChildFuture and not (result._wanted or result._state != PENDING):
        return NO_BLOB, [result.number]
    numbers: list[int] = []
    token = _RETURNED.set(numbers)
    try:
        return pickle_it(result), list(dict.fromkeys(numbers))
    finally:
        _RETURNED.reset(token)
