"""Runs calls and gathers their outcomes: one failure never costs another task its result."""

import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, starmap
from types import FrameType
from typing import TYPE_CHECKING, Any

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
from taskfarm.worker.remote_failures import RemoteFailures

if TYPE_CHECKING:
    from taskfarm.worker.isolation import IsolatedRunner


BREAK_OFF = signal.SIGURG
"""The signal that interrupts an abandoned task. Nobody else uses it, and by default it does nothing."""

BREAK_OFF_INTERVAL = 0.5
"""Seconds after which a task that goes on is interrupted again."""


class TaskAbandoned(BaseException):
    """Raised inside a task that nobody waits for any more."""


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
    interrupted : BaseException or None
        The exception of `propagate` that a task raised.
    num_tasks : int
        Calls run so far.
    output : OutputCapture or None
        What sends the output of tasks to the master, if it goes there.
    """

    def __init__(self, place: Place, propagate: tuple[type[BaseException], ...]) -> None:
        self._place = place
        self._failures = RemoteFailures(place)
        self._describe_call: Callable[[int], str] = str
        self._propagate = propagate
        self._functions: dict[int, tuple[str, Callable[..., Any] | Failure, int]] = {}
        self._farm_of: dict[int, int] = {}
        self._limits: dict[int, tuple[str, Limits]] = {}
        self._isolated_runner: IsolatedRunner | None = None
        self._send_output: SendOutput | None = None
        self._farms: dict[int, tuple[Initialize, InitializerGlobals]] = {}
        self._waiting: deque[Part] = deque()
        self._claims: ClaimedCalls | None = None
        self._context = TaskContext(place)
        self._thread: int | None = None
        self._abandoned: set[int] = set()
        self._last_break_off = 0.0
        self._former_handler: Any = None
        self.interrupted: BaseException | None = None
        self.num_tasks = 0
        self.output: OutputCapture | None = None

    def capture_output(self, send: SendOutput) -> None:
        """From now on, send what tasks print and log here and in the child process through `send`."""
        self.output = OutputCapture(send)
        self._send_output = send
        if self._isolated_runner is not None:
            self._isolated_runner.send_output = send

    def define(self, message: Define) -> None:
        """Load a function; if it cannot be loaded, each of its tasks will fail with the reason."""
        function, name, blob, forget, limits, farm = message
        for old in forget:
            self._functions.pop(old, None)
            self._limits.pop(old, None)
            self._farm_of.pop(old, None)
        self._farm_of[function] = farm
        if self._isolated_runner is not None:
            self._isolated_runner.forget(forget)
        if limits is not None:
            self._limits[function] = (name, limits)
            self._isolated().define(message)
            return
        opening, initializer_globals = self._farms.get(farm, _NO_FARM)
        try:
            loaded = loads(blob)
            called = getattr(loaded, "__taskfarm_function__", loaded)
            initializer_globals.apply_to(called)
        except self._propagate:
            raise
        except BaseException as error:
            wrapped = self._failures.not_loadable("the function", error)
            called = self._failures.of(f"function {name}", wrapped)
        self._functions[function] = (name, called, opening.seed)

    def initialize(self, message: Initialize) -> Failure | None:
        """Extend the path, and call the initializer if there is one; returns its failure, if it failed."""
        sys.path.extend(place for place in message.path if place not in sys.path)
        if self.output is not None and message.farm:
            logging.getLogger().setLevel(message.level)
        for farm in message.forget:
            self._farms.pop(farm, None)
            self._abandoned.discard(farm)
        initializer_globals = InitializerGlobals()
        if message.farm:
            self._farms[message.farm] = (message, initializer_globals)
        if self._isolated_runner is not None:
            self._isolated_runner.open_farm(message)
        try:
            failure = None
            if message.blob is not None and message.isolate:
                failure = self._isolated().call_initializer(message.farm)
            if message.blob is not None and not message.isolate:
                initializer, arguments = loads(message.blob)
                initializer_globals.run(initializer, arguments)
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
            if self.output is not None:
                self.output.flush_lines()
            IN_TASK.reset(token)
            self._waiting.clear()
            self._claims = self._thread = None
            self._context.end()
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

    def let_others_break_off(self) -> None:
        """Let another thread break off the tasks of this one, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._former_handler = signal.signal(BREAK_OFF, self._on_break_off)

    def abandon(self, farm: int) -> None:
        """Break off the task that runs, if it belongs to this farm; for another thread."""
        self._abandoned.add(farm)
        self._last_break_off = 0.0
        self.break_off()

    def break_off(self) -> None:
        """Interrupt an abandoned task, again if it goes on; for another thread."""
        if not self._abandoned:
            return
        claims, thread, now = self._claims, self._thread, time.perf_counter()
        if claims is None or thread is None or not self._is_abandoned(claims):
            return
        if now - self._last_break_off < BREAK_OFF_INTERVAL:
            return
        self._last_break_off = now
        if claims.function in self._limits:
            self._isolated().kill()
        else:
            signal.pthread_kill(thread, BREAK_OFF)

    def _is_abandoned(self, claims: ClaimedCalls) -> bool:
        return self._farm_of.get(claims.function) in self._abandoned

    def _on_break_off(self, signum: int, frame: FrameType | None) -> None:
        """Raise if this is inside a call of an abandoned farm: exceptions are expected only there."""
        claims = self._claims
        if claims is None or not self._is_abandoned(claims):
            return
        while frame is not None and frame.f_code is not _call_next.__code__:
            frame = frame.f_back
        if frame is not None:
            raise TaskAbandoned

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
            name, *_ = self._functions[claims.function]
            task, stack = self._context.task, format_stack(frame)
        return task, f"task {task} {name}:\n{stack}"

    def close(self) -> None:
        """End the child process, if there is one, and restore the standard streams."""
        if self._isolated_runner is not None:
            self._isolated_runner.close()
        if self._former_handler is not None:
            signal.signal(BREAK_OFF, self._former_handler)
            self._former_handler = None
        if self.output is not None:
            self.output.restore()
            self.output = None

    # Calls in a child process

    def _isolated(self) -> "IsolatedRunner":
        """What runs calls in a child process; most workers never need it."""
        if self._isolated_runner is None:
            from taskfarm.worker.isolation import IsolatedRunner

            self._isolated_runner = IsolatedRunner(self._place)
            self._isolated_runner.send_output = self._send_output
            for opening, _ in self._farms.values():
                self._isolated_runner.open_farm(opening)
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
        name, called, seed = self._functions[function]
        results: list[Any] = []
        self._context.begin(part, name, results, seed)
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
                    _call_next(steps, missing, results)
                    if len(results) == claims.claimed:
                        return
                    error = StopIteration()
                except BaseException as raised:
                    error = raised
            if isinstance(error, self._propagate):
                self.interrupted = error
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


def _call_next(steps: Iterator[Any], count: int, results: list[Any]) -> None:
    """Make the next calls; all code of a task runs in here."""
    # extend runs the loop in C, and keeps what it has when a step raises.
    results.extend(islice(steps, count))


_NO_FARM = (Initialize(0, [], None), InitializerGlobals())
"""What a function has that came without a farm."""


def _singles(calls: Calls) -> Iterator[Calls]:
    """The calls of a part, each in the form of a part with one call."""
    if isinstance(calls, bytes):
        for row in zip(*load_plain(calls), strict=True):
            yield dump_plain([(cell,) for cell in row])
    else:
        for blob in calls:
            yield [blob]
