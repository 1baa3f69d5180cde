"""Run calls and gather what becomes of them: one failure never costs another task its result."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, starmap
from typing import Any

from taskfarm.protocol import describe
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
from taskfarm.worker.claims import Share
from taskfarm.worker.context import IN_TASK, Place
from taskfarm.worker.initializer_globals import SharedGlobals
from taskfarm.worker.isolation import Isolation
from taskfarm.worker.output_capture import Say, Speech
from taskfarm.worker.remote_failures import Blame
from taskfarm.worker.task_context import Present


class Runner:
    """Runs parts of a batch: itself, or in a child process where the function has limits.

    Parameters
    ----------
    place : Place
        Rank and host.
    passes : tuple of exception types
        What ends the whole batch when a task raises it, besides failing that task; elsewhere it is
        one task's failure like any other exception.

    Attributes
    ----------
    interrupted : BaseException or None
        The exception of `passes` that a task raised.
    tasks : int
        Calls run so far.
    speech : Speech or None
        What sends the lines that tasks print, if they go to the master.
    """

    def __init__(self, place: Place, passes: tuple[type[BaseException], ...]) -> None:
        self._place = place
        self._blame = Blame(place)
        self._call: Callable[[int], str] = str
        self._passes = passes
        self._functions: dict[int, tuple[str, Callable[..., Any] | Failure]] = {}
        self._isolated: dict[int, tuple[str, Limits]] = {}
        self._isolation = Isolation(place)
        self._waiting: deque[Part] = deque()
        self._share: Share | None = None
        self._present = Present(place)
        self._shared = SharedGlobals()
        self._thread: int | None = None
        self.interrupted: BaseException | None = None
        self.tasks = 0
        self.speech: Speech | None = None

    def speak(self, say: Say) -> None:
        """From now on, what tasks print and log here and in the child process goes through `say`."""
        self.speech = Speech(say)
        self._isolation.say = say

    def define(self, message: Define) -> None:
        """Take in a function; if it cannot be loaded, each of its tasks will fail with the reason."""
        function, name, blob, forget, limits = message
        for old in forget:
            self._functions.pop(old, None)
            self._isolated.pop(old, None)
        self._isolation.forget(forget)
        if limits is not None:
            self._isolated[function] = (name, limits)
            self._isolation.define(message)
            return
        try:
            loaded = loads(blob)
            called = getattr(loaded, "__taskfarm_function__", loaded)
            self._shared.give(called)
        except self._passes:
            raise
        except BaseException as error:
            called = self._blame.of(f"function {name}", self._blame.not_loadable("the function", error))
        self._functions[function] = (name, called)

    def initialize(self, message: Initialize) -> Failure | None:
        """Extend the path, call the initializer if there is one; returns how it failed, if it did."""
        sys.path.extend(place for place in message.path if place not in sys.path)
        if self.speech is not None and message.farm:
            logging.getLogger().setLevel(message.level)
        if message.farm:
            self._present.seed = message.seed
        try:
            failure = self._isolation.initialize(message)
            if message.blob is not None and not message.isolate:
                initializer, arguments = loads(message.blob)
                self._shared.run(initializer, arguments)
                for _, called in self._functions.values():
                    self._shared.give(called)
        except self._passes:
            raise
        except BaseException as error:
            return self._blame.of("initializer", error)
        return failure

    def run(self, parts: list[Part]) -> list[Outcomes]:
        """Run the calls of a batch in order, apart from those that `give_back` takes meanwhile."""
        self.interrupted = None
        self._waiting.extend(parts)
        outcomes: list[Outcomes] = []
        token, self._thread = IN_TASK.set(self._present), threading.get_ident()
        try:
            while self._waiting:
                try:
                    part = self._waiting.popleft()
                except IndexError:  # given back just now
                    break
                run = self._run_isolated if part.function in self._isolated else self._run_part
                outcomes.extend(run(part))
        finally:
            if self.speech is not None:
                self.speech.end_lines()
            IN_TASK.reset(token)
            self._waiting.clear()
            self._share = self._thread = None
            self._present.end()
        return outcomes

    def give_back(self) -> tuple[list[tuple[int, int]], tuple[int, int, float] | None]:
        """Take away the calls that have not started, for another thread than that which runs them.

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
        share = self._share
        if share is None:
            return tasks, None
        if count := share.give_back():
            tasks.append((share.first + share.end, count))
        return tasks, (share.function, max(1, share.claimed), time.perf_counter() - share.started)

    def where(self) -> tuple[int, str]:
        """The task that is being run, -1 if none is, and the stack of its thread; for another thread."""
        share = self._share
        frame = sys._current_frames().get(self._thread or 0)
        if share is None or frame is None:
            return -1, "no task is being run"
        isolated = share.function in self._isolated
        name, _ = self._isolated[share.function] if isolated else self._functions[share.function]
        task = share.first + share.claimed - 1 if isolated else self._present.task
        where = self._isolation.where() if isolated else format_stack(frame)
        return task, f"task {task} {name}:\n{where}"

    def close(self) -> None:
        """End the child process, if there is one, and put the standard streams back."""
        self._isolation.close()
        if self.speech is not None:
            self.speech.end()
            self.speech = None

    def _run_isolated(self, part: Part) -> Iterator[Outcomes]:
        """Run the calls of a part in a child process, one by one; what they return stays as it came."""
        function, source, first, count, calls, attempt, stream, index = part
        name, limits = self._isolated[function]
        share = self._share = Share(function, first, count, time.perf_counter())
        singles = _singles(calls)
        while share.claim(1):
            task = first + share.claimed - 1
            place = (stream, index + share.claimed - 1)
            single = Part(function, source, task, 1, next(singles), attempt, *place)
            error = self.interrupted
            if error is None:
                try:
                    outcomes = self._isolation.run(single, limits)
                except BaseException as raised:
                    error = raised
            if error is not None:
                if isinstance(error, self._passes):
                    self.interrupted = error
                failure = self._blame.task(task, name, attempt, error)
                outcomes = Outcomes(source, task, 1, [NO_BLOB], {0: failure}, 0.0, time.perf_counter())
            self.tasks += 1
            yield outcomes

    def _run_part(self, part: Part) -> Iterator[Outcomes]:
        function, source, first, count, calls, attempt, *_ = part
        name, called = self._functions[function]
        results: list[Any] = []
        self._present.begin(part, name, results)
        failures: dict[int, Failure] = {}
        share = self._share = Share(function, first, count, time.perf_counter())
        if isinstance(called, Failure):
            count = share.claim(count)
            results = [None] * count
            failures = dict.fromkeys(range(count), called)
        else:
            steps = self._start(name, called, calls)
            while share.claim_next(time.perf_counter()):
                self._collect(steps, share, attempt, results, failures)
        seconds = time.perf_counter() - share.started
        self.tasks += share.end
        values = self._pack(results, failures, name, first)
        if share.end:
            yield Outcomes(source, first, share.end, values, failures, seconds, share.started)

    def _start(self, name: str, called: Callable[..., Any], calls: bytes | list[Blob]) -> Iterator[Any]:
        """An iterator that makes one call a step, and can go on after one that raised."""
        if isinstance(calls, bytes):
            columns = load_plain(calls)
            self._call = lambda offset: describe.describe_call(
                name, [column[offset] for column in columns], {}
            )
            return starmap(called, zip(*columns, strict=True))
        failed = name
        self._call = lambda offset: failed

        def call(blob: Blob) -> Any:
            nonlocal failed
            failed = name
            try:
                arguments, keywords = loads(blob)
            except self._passes:
                raise
            except BaseException as error:
                raise self._blame.not_loadable("an argument", error) from error
            try:
                return called(*arguments, **keywords)
            except BaseException:
                failed = describe.describe_call(name, arguments, keywords)
                raise

        return map(call, calls)

    def _collect(
        self,
        steps: Iterator[Any],
        share: Share,
        attempt: int,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Draw a result for each call claimed; one that raises leaves None there, and a failure."""
        while (missing := share.claimed - len(results)) > 0:
            error: BaseException | None = self.interrupted
            if error is None:
                try:
                    # extend runs the loop in C, and keeps what it has when a step raises.
                    results.extend(islice(steps, missing))
                    if len(results) == share.claimed:
                        return
                    error = StopIteration()
                except BaseException as raised:
                    error = raised
            if isinstance(error, self._passes):
                self.interrupted = error
            offset = len(results)
            failures[offset] = self._blame.task(share.first + offset, self._call(offset), attempt, error)
            results.append(None)

    def _pack(self, results: list[Any], failures: dict[int, Failure], name: str, first: int) -> Values:
        if plain_nbytes(results) is not None:
            return dump_plain(results)
        blobs = []
        for offset, result in enumerate(results):
            blob = NO_BLOB
            if offset not in failures:
                try:
                    blob = dumps(result)
                except self._passes:
                    raise
                except BaseException as error:
                    wrapped = self._blame.not_picklable(name, result, error)
                    failures[offset] = self._blame.task(first + offset, name, 1, wrapped)
            blobs.append(blob)
        return blobs


def _singles(calls: Calls) -> Iterator[Calls]:
    """The calls of a part, each as a part of one call has it."""
    if isinstance(calls, bytes):
        for row in zip(*load_plain(calls), strict=True):
            yield dump_plain([(cell,) for cell in row])
    else:
        for blob in calls:
            yield [blob]
