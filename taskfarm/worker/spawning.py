"""What a task uses to submit tasks: the farm as it looks from inside a task."""

import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from taskfarm.errors import ResultNotLoadable, UsageError, wrap
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.consecutive import runs
from taskfarm.protocol.dependency_failures import NOT_RUN, NoResult
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.failures import restore_exception, summarize
from taskfarm.protocol.messages import (
    Blob,
    DefineNames,
    Failure,
    NewFunction,
    Settled,
    Spawn,
    ToMaster,
    Withdraw,
    Withdrawn,
)
from taskfarm.protocol.reduction import NO_INITIAL, Reduction
from taskfarm.protocol.serialize import dumps, load_plain
from taskfarm.protocol.sides import of_main
from taskfarm.protocol.snapshot import is_importable
from taskfarm.protocol.task_base import is_task, policy_of
from taskfarm.worker.child_futures import ChildFuture
from taskfarm.worker.child_maps import SPAWNED_TOGETHER, WINDOW, ChildMap
from taskfarm.worker.context import IN_TASK, TaskContext

if TYPE_CHECKING:
    from taskfarm.worker.runner import Runner

T = TypeVar("T")

MAX_DEPTH = 200
"""Tasks that may wait inside each other on one worker."""


class Upstream(ABC):
    """The way from a task to rank 0, and what its process does while the task waits."""

    depth = 0
    """Tasks that wait inside each other on this worker."""

    num_workers = 1
    """Number of workers of the run, as far as it is known here."""

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
        """Wait until `done()`, for the outcomes of the calls `wanted`; False if the deadline passes."""

    @abstractmethod
    def ask(self, spawner: "Spawner", done: Callable[[], bool]) -> None:
        """Wait for an answer of rank 0, and run nothing."""


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
    def num_workers(self) -> int:
        """Number of workers that may run what a task submits."""
        return self._upstream.num_workers

    @property
    def closed(self) -> bool:
        """Return False: the farm lasts as long as its task."""
        return False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ChildFuture[T]:
        """Queue a call; see `taskfarm.Farm.submit`."""
        context = self._context()
        arguments = Arguments.from_call(args, kwargs)
        stream = context.next_stream(of_map=False)
        return self.spawn(fn, arguments, *stream)[0]

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
        **chosen: Any,
    ) -> Iterator[Any]:
        """Call a function for all items of some iterables; see `taskfarm.Farm.map`."""
        fn = _with_options(fn, chosen)
        rows = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        return self._map(fn, rows, len(iterables) == 1, timeout, buffersize, unordered, with_arguments)

    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
        **chosen: Any,
    ) -> Iterator[Any]:
        """Call a function with each tuple as its arguments; otherwise like `map`."""
        fn = _with_options(fn, chosen)
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
            count = len(values)
            reduction.extend(position, values)
            position += count
        return reduction.finish(initial)

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
        run = ChildMap(self, fn, rows, single, stream, buffersize or WINDOW)
        run.draw()
        deadline = None if timeout is None else time.monotonic() + timeout
        return run.results(deadline, unordered, with_arguments)

    def _context(self) -> TaskContext:
        """The context of the task that runs.

        Raises
        ------
        UsageError
            This is another thread than the one that runs the task.
        """
        self._runner.nesting.check_thread()
        context = self.context
        if context.gang_rank is not None:
            raise UsageError(
                "a task on several ranks cannot submit tasks: return what they need, and submit them in "
                "the job or in a task on one rank"
            )
        return context

    def spawn(
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
        needs = {offset: list(found) for offset, found in arguments.futures.items()} or None
        self._pending.update((future.number, future) for future in futures)
        self._upstream.send(
            Spawn(context.task, part.source, first, count, function, calls, stream, index, new, needs)
        )
        context.spawned.append((first, count))
        for offset, error in arguments.errors.items():
            self.withdraw(futures[offset])
            futures[offset].fail(error.of(name, NOT_RUN) if isinstance(error, NoResult) else error)
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
        wanted = [(run.start, len(run)) for run in runs(sorted(self._wanted))]
        self._wanted.clear()
        return wanted

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
            values = message.values
            if isinstance(values, bytes):
                values = load_plain(values)
            for offset, value in enumerate(values):
                future = self._pending.pop(message.first + offset, None)
                if future is not None:
                    future.complete(*self._outcome(value, message.failures.get(offset)))

    def _outcome(self, value: Any, failure: Failure | None) -> tuple[Any, BaseException | None]:
        """A result and an exception, one of which is None."""
        if failure is not None:
            # The remote traceback names the call; a note would be repeated on each level.
            return None, restore_exception(failure._replace(note=""))
        if type(value) is not Blob:
            return value, None
        try:
            return self._runner.nesting.load(value), None
        except Exception as error:
            text = f"the result cannot be unpickled by the task that waits for it: {summarize(error)}"
            return None, wrap(ResultNotLoadable, error, text)

    def end_tasks(self, spawned: list[tuple[int, int]]) -> None:
        """Forget what tasks have submitted that have ended."""
        for first, count in spawned:
            for number in range(first, first + count):
                if (future := self._pending.pop(number, None)) is not None:
                    self._arrived.pop(future.context, None)


def _with_options(fn: Any, options: dict[str, Any]) -> Any:
    """A task with the options that a map was given, such as its priority."""
    given = {name: value for name, value in options.items() if value is not None}
    return fn.options(**given) if given else fn


def _has_name(fn: Any) -> bool:
    """Whether a function or task is found under its name in its module."""
    if fn.__module__ != "__main__":
        return is_importable(fn)
    try:
        return of_main(fn.__qualname__) is fn
    except AttributeError:
        return False
