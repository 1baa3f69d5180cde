"""Runs calls and gathers their outcomes: one failure never costs another task its result."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, starmap
from typing import TYPE_CHECKING, Any

from taskfarm.fork_hooks import exit_forked_child, in_forked_children
from taskfarm.protocol.describe import describe_call
from taskfarm.protocol.failures import format_stack
from taskfarm.protocol.messages import (
    NO_BLOB,
    Blob,
    Calls,
    Define,
    Failure,
    Initialize,
    Limits,
    Outcomes,
    Part,
    Values,
)
from taskfarm.protocol.serialize import dump_plain, dumps, load_plain, loads, plain_nbytes
from taskfarm.worker.claims import ClaimedCalls
from taskfarm.worker.context import IN_TASK, Place, TaskContext
from taskfarm.worker.initializer_globals import InitializerGlobals
from taskfarm.worker.output_capture import OutputCapture, SendOutput
from taskfarm.worker.remote_failures import ForkedChildFailures, RemoteFailures
from taskfarm.worker.user_signals import UserSignals

if TYPE_CHECKING:
    from taskfarm.worker.isolation import IsolatedRunner


class Runner:
    """Runs the parts of a batch: itself, or in a child process if their function has limits.

    Parameters
    ----------
    place : Place
        Rank and host.
    propagate : tuple of exception types
        Exceptions that end the whole batch when a task raises them, besides failing that task. Any other
        exception fails one task only.

    Attributes
    ----------
    place : Place
        As given.
    interrupted : BaseException or None
        The exception of `propagate` that a task raised.
    num_tasks : int
        Calls run so far.
    output : OutputCapture or None
        What sends the output of tasks to the master, if it goes there.
    """

    def __init__(self, place: Place, propagate: tuple[type[BaseException], ...]) -> None:
        self.place = place
        self._failures = RemoteFailures(place)
        self._describe_call: Callable[[int], str] = str
        self._propagate = propagate
        self._functions: dict[int, tuple[str, Callable[..., Any] | Failure]] = {}
        self._limits: dict[int, tuple[str, Limits]] = {}
        self._isolated_runner: IsolatedRunner | None = None
        self._send_output: SendOutput | None = None
        self._opening: Initialize | None = None
        self._waiting: deque[Part] = deque()
        self._claims: ClaimedCalls | None = None
        self._context = TaskContext(place)
        self._initializer_globals = InitializerGlobals()
        self._thread: int | None = None
        self.interrupted: BaseException | None = None
        self.num_tasks = 0
        self.output: OutputCapture | None = None
        self._forked = False
        self._signals: UserSignals | None = None
        in_forked_children(self._enter_forked_child)

    def _enter_forked_child(self) -> None:
        """In a process that a task has forked: run no other call, and send nothing."""
        self._forked = True
        self._failures = ForkedChildFailures(self.place)
        self._waiting.clear()
        if self._claims is not None:
            self._claims.abandon_unstarted()
        if self.output is not None:
            self.output.bypass()

    def guard_signals(self) -> None:
        """Keep the signal handlers and timers of tasks from disturbing this process; once in a process."""
        self._signals = UserSignals(self.place)

    def capture_output(self, send: SendOutput) -> None:
        """From now on, send what tasks print and log here and in the child process through `send`."""
        self.output = OutputCapture(send)
        self._send_output = send
        if self._isolated_runner is not None:
            self._isolated_runner.send_output = send

    def define(self, message: Define) -> None:
        """Load a function; if it cannot be loaded, each of its tasks will fail with the reason."""
        function, name, blob, forget, limits = message
        for old in forget:
            self._functions.pop(old, None)
            self._limits.pop(old, None)
        if self._isolated_runner is not None:
            self._isolated_runner.forget(forget)
        if limits is not None:
            self._limits[function] = (name, limits)
            self._isolated().define(message)
            return
        try:
            loaded = loads(blob)
            called = getattr(loaded, "__taskfarm_function__", loaded)
            self._initializer_globals.apply_to(called)
        except self._propagate:
            raise
        except BaseException as error:
            wrapped = self._failures.not_loadable("the function", error)
            called = self._failures.of(f"function {name}", wrapped)
        self._functions[function] = (name, called)

    def initialize(self, message: Initialize) -> Failure | None:
        """Extend the path, and call the initializer if there is one; returns its failure, if it failed."""
        failure = self._initialize(message)
        if self._forked:
            exit_forked_child(0)
        if self._signals is not None:
            self._signals.keep_timers()
        return failure

    def _initialize(self, message: Initialize) -> Failure | None:
        sys.path.extend(place for place in message.path if place not in sys.path)
        if self.output is not None and message.farm:
            logging.getLogger().setLevel(message.level)
        if message.farm:
            self._context.seed = message.seed
        self._opening = message
        if self._isolated_runner is not None:
            self._isolated_runner.open_farm(message)
        try:
            failure = None
            if message.blob is not None and message.isolate:
                failure = self._isolated().call_initializer()
            if message.blob is not None and not message.isolate:
                initializer, arguments = loads(message.blob)
                self._initializer_globals.run(initializer, arguments)
                for _, called in self._functions.values():
                    self._initializer_globals.apply_to(called)
        except self._propagate:
            raise
        except BaseException as error:
            return self._failures.of("initializer", error)
        return failure

    def run(self, parts: list[Part]) -> list[Outcomes]:
        """Run the calls of a batch in order, except those that `release_unstarted` releases meanwhile."""
        self.interrupted = None
        self._waiting.extend(parts)
        outcomes: list[Outcomes] = []
        token, self._thread = IN_TASK.set(self._context), threading.get_ident()
        try:
            while self._waiting:
                try:
                    part = self._waiting.popleft()
                except IndexError:  # released just now
                    break
                run = self._run_isolated if part.function in self._limits else self._run_part
                outcomes.extend(run(part))
        finally:
            if self._signals is not None:
                self._signals.end_batch(parts[-1].first, self._name_of(parts[-1].function))
            if self.output is not None:
                self.output.flush_lines()
            IN_TASK.reset(token)
            self._waiting.clear()
            self._claims = self._thread = None
            self._context.end()
        if self._forked:
            # A task has forked this process, and returned in it, too; its outcomes are the parent's.
            exit_forked_child(0)
        return outcomes

    def release_unstarted(self) -> tuple[list[tuple[int, int]], tuple[int, int, float] | None]:
        """Release the calls that have not started; for another thread than the one that runs them.

        Returns
        -------
        tasks, running
            As in `Returned`.
        """
        tasks = []
        while self._waiting:
            try:
                part = self._waiting.pop()
            except IndexError:  # started just now
                break
            tasks.append((part.first, part.count))
        claims = self._claims
        if claims is None:
            return tasks, None
        if count := claims.release_unstarted():
            tasks.append((claims.first + claims.end, count))
        return tasks, (claims.function, max(1, claims.claimed), time.perf_counter() - claims.started)

    def current_stack(self) -> tuple[int, str]:
        """The task that is running, -1 if none is, and the stack of its thread; for another thread."""
        claims = self._claims
        frame = sys._current_frames().get(self._thread or 0)
        if claims is None or frame is None:
            return -1, "no task is running"
        if claims.function in self._limits:
            name, _ = self._limits[claims.function]
            task, stack = claims.first + claims.claimed - 1, self._isolated().current_stack()
        else:
            name, _ = self._functions[claims.function]
            task, stack = self._context.task, format_stack(frame)
        return task, f"task {task} {name}:\n{stack}"

    def _name_of(self, function: int) -> str:
        return (self._functions.get(function) or self._limits[function])[0]

    def close(self) -> None:
        """End the child process, if there is one, and restore the standard streams."""
        if self._signals is not None:
            self._signals.end()
        if self._isolated_runner is not None:
            self._isolated_runner.close()
        self.restore_output()

    def restore_output(self) -> None:
        """Restore the standard streams."""
        if self.output is not None:
            self.output.restore()
            self.output = None

    # Calls in a child process

    def _isolated(self) -> "IsolatedRunner":
        """What runs calls in a child process; most workers never need it."""
        if self._isolated_runner is None:
            from taskfarm.worker.isolation import IsolatedRunner

            self._isolated_runner = IsolatedRunner(self.place)
            self._isolated_runner.send_output = self._send_output
            if self._opening is not None:
                self._isolated_runner.open_farm(self._opening)
        return self._isolated_runner

    def _run_isolated(self, part: Part) -> Iterator[Outcomes]:
        """Run the calls of a part one by one; their pickled results are passed on as they come."""
        function, source, first, count, calls, attempt, stream, index = part
        name, limits = self._limits[function]
        claims = self._claims = ClaimedCalls(function, first, count, time.perf_counter())
        singles = _singles(calls)
        while claims.claim(1):
            task = first + claims.claimed - 1
            position = (stream, index + claims.claimed - 1)
            single = Part(function, source, task, 1, next(singles), attempt, *position)
            error = self.interrupted
            if error is None:
                try:
                    outcomes = self._isolated().run(single, limits)
                except BaseException as raised:
                    error = raised
            if error is not None:
                if isinstance(error, self._propagate):
                    self.interrupted = error
                failure = self._failures.of_task(task, name, attempt, error)
                outcomes = Outcomes(source, task, 1, [NO_BLOB], {0: failure}, 0.0, time.perf_counter())
            self.num_tasks += 1
            yield outcomes

    # Calls in this process

    def _run_part(self, part: Part) -> Iterator[Outcomes]:
        function, source, first, count, calls, attempt, *_ = part
        name, called = self._functions[function]
        results: list[Any] = []
        self._context.begin(part, name, results)
        failures: dict[int, Failure] = {}
        claims = self._claims = ClaimedCalls(function, first, count, time.perf_counter())
        if isinstance(called, Failure):
            count = claims.claim(count)
            results = [None] * count
            failures = dict.fromkeys(range(count), called)
        else:
            steps = self._start(name, called, calls)
            while claims.claim_next(time.perf_counter()):
                self._collect(steps, claims, attempt, results, failures)
        seconds = time.perf_counter() - claims.started
        self.num_tasks += claims.end
        values = self._pack(results, failures, name, first)
        if claims.end:
            yield Outcomes(source, first, claims.end, values, failures, seconds, claims.started)

    def _start(self, name: str, called: Callable[..., Any], calls: Calls) -> Iterator[Any]:
        """An iterator that makes one call a step, and can go on after one that raised."""
        if isinstance(calls, bytes):
            columns = load_plain(calls)
            self._describe_call = lambda offset: describe_call(
                name, [column[offset] for column in columns], {}
            )
            return starmap(called, zip(*columns, strict=True))
        failed = name
        self._describe_call = lambda offset: failed

        def call(blob: Blob) -> Any:
            nonlocal failed
            failed = name
            try:
                arguments, keywords = loads(blob)
            except self._propagate:
                raise
            except BaseException as error:
                raise self._failures.not_loadable("an argument", error) from error
            try:
                return called(*arguments, **keywords)
            except BaseException:
                failed = describe_call(name, arguments, keywords)
                raise

        return map(call, calls)

    def _collect(
        self,
        steps: Iterator[Any],
        claims: ClaimedCalls,
        attempt: int,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Draw a result for each claimed call; one that raises leaves None there, and a failure."""
        while (missing := claims.claimed - len(results)) > 0:
            error: BaseException | None = self.interrupted
            if error is None:
                try:
                    run_calls(results, islice(steps, missing))
                    error = StopIteration()
                except BaseException as raised:
                    error = raised
            if isinstance(error, self._propagate):
                self.interrupted = error
            if len(results) == claims.claimed:
                # Whatever was raised came too late for these calls.
                return
            offset = len(results)
            call = self._describe_call(offset)
            failures[offset] = self._failures.of_task(claims.first + offset, call, attempt, error)
            results.append(None)

    def _pack(self, results: list[Any], failures: dict[int, Failure], name: str, first: int) -> Values:
        """Pickle results together if all are plain, else each by itself; a bad one becomes a failure."""
        if plain_nbytes(results) is not None:
            return dump_plain(results)
        blobs = []
        for offset, result in enumerate(results):
            blob = NO_BLOB
            if offset not in failures:
                try:
                    blob = dumps(result)
                except self._propagate:
                    raise
                except BaseException as error:
                    wrapped = self._failures.not_picklable(name, result, error)
                    failures[offset] = self._failures.of_task(first + offset, name, 1, wrapped)
            blobs.append(blob)
        return blobs


def run_calls(results: list[Any], steps: Iterator[Any]) -> None:
    """Run calls in C, and append their results; `results` keeps what it has when a step raises."""
    results.extend(steps)


def _singles(calls: Calls) -> Iterator[Calls]:
    """The calls of a part, each in the form of a part with one call."""
    if isinstance(calls, bytes):
        for row in zip(*load_plain(calls), strict=True):
            yield dump_plain([(cell,) for cell in row])
    else:
        for blob in calls:
            yield [blob]
