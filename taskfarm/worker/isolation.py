"""Runs calls in a supervised child process: a call that crashes it, or passes a limit, fails alone."""

import atexit
import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from taskfarm.errors import SharedDataError, TaskCrashed, TaskError, TaskMemory, TaskTimeout
from taskfarm.protocol import messages
from taskfarm.protocol.failures import capture_exception
from taskfarm.protocol.messages import (
    NO_BLOB,
    Asked,
    Attach,
    Await,
    Blob,
    Build,
    Define,
    DefineNames,
    Definitions,
    Drop,
    Failed,
    Failure,
    Fetch,
    Forget,
    Give,
    Have,
    Initialize,
    Limits,
    Message,
    Outcomes,
    Part,
    Ready,
    Reserve,
    Results,
    SetPath,
    Spawn,
    Stop,
    ToWorker,
    Unavailable,
    Withdraw,
    Work,
)
from taskfarm.worker.channel import CONNECTION_LOST, ChannelBroken
from taskfarm.worker.child_process import EXIT_SECONDS, ChildProcess, LimitExceeded
from taskfarm.worker.context import Place
from taskfarm.worker.left_behind import LEFT_SECONDS, TERMINATE_SECONDS, report_group
from taskfarm.worker.output_capture import SendOutput

if TYPE_CHECKING:
    from taskfarm.worker.child_nesting import ChildTasks
    from taskfarm.worker.nesting import Nesting
    from taskfarm.worker.shared_data import SharedData

START_SECONDS = 120.0
"""Seconds within which a child must have started."""

PREPARE_SECONDS = 900.0
"""Seconds that a child may take to run the initializer, or to load a function."""

SEND_SECONDS = 60.0
"""Seconds within which a child must read what it is sent."""

_BARRIER = Initialize(0, [], None)
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")


class _Failed(Exception):
    """The current call, or its preparation, has failed; the argument is the `Failure`."""


class IsolatedRunner:
    """Runs calls in a child process, which is started when it is needed and kept between calls.

    Parameters
    ----------
    place : Place
        Rank and host of the worker.
    definitions : mapping of int to (tuple of str, Blob)
        The definitions that the worker has.
    farms : mapping of int to Initialize
        How the worker's farms were opened, with the levels that the job's loggers have now.
    shared_data : callable
        Returns the shared data of the worker.
    nesting : callable
        Returns what lets tasks of the worker submit tasks.

    Attributes
    ----------
    send_output : callable or None
        Takes what tasks in the child print and log; None: it goes where the worker's own output goes.
    """

    def __init__(
        self,
        place: Place,
        definitions: Mapping[int, tuple[tuple[str, ...], Blob]],
        farms: Mapping[int, Initialize],
        shared_data: "Callable[[], SharedData]",
        nesting: "Callable[[], Nesting]",
    ) -> None:
        self._place = place
        self._shared_data = shared_data
        self._nesting = nesting
        self._children: ChildTasks | None = None
        self._waited = 0.0
        self._building: set[bytes] = set()
        self._definitions = definitions
        self._farms = farms
        self._functions: dict[int, Define] = {}
        self._child: ChildProcess | None = None
        self._owner = 0
        self.send_output: SendOutput | None = None
        self._starter: ThreadPoolExecutor | None = None
        # Held while a call begins or ends, so that none is taken for another.
        self._turn = threading.Lock()
        self._running = self._cancelled = -1

    def define(self, message: Define) -> None:
        """Keep a function; a child gets it before the first call that needs it."""
        self._functions[message.function] = message._replace(limits=None, keep=False)

    def forget(self, functions: Iterable[int]) -> None:
        """Drop functions."""
        for function in functions:
            self._functions.pop(function, None)

    def call_initializer(self, farm: int) -> Failure | None:
        """Run a farm's initializer in a child now; returns its failure, if it failed."""
        try:
            self._prepare(farm)
        except _Failed as failed:
            return failed.args[0]  # type: ignore[no-any-return]
        except BaseException:
            self._drop()
            raise
        return None

    def run(self, part: Part, limits: Limits) -> Outcomes:
        """Run a part of one call, whatever happens to the process that runs it."""
        self._waited = 0.0
        started = time.perf_counter()
        define = self._functions[part.function]
        opening = self._farms.get(define.farm)
        levels = None if opening is None else opening.levels
        with self._turn:
            self._running = part.first
        try:
            self._prepare(define.farm, define, part)
            if self._cancelled == part.first:
                raise self._failed(TaskCrashed("it was cancelled"), "a call")
            reply = self._ask([Work([part], levels)], limits, f"task {part.first} {define.name}")
            assert isinstance(reply, Results)
            outcomes = reply.parts[0]
            self._count_task(limits.max_tasks)
        except _Failed as failed:
            outcomes = Outcomes(part.source, part.first, 1, [NO_BLOB], {0: failed.args[0]}, 0.0)
        except BaseException:
            self._drop()
            raise
        finally:
            self._children = None
            with self._turn:
                self._running = -1
            if self._cancelled == part.first:
                # It may have answered before it was killed.
                self._drop()
                self._cancelled = -1
        seconds = time.perf_counter() - started - self._waited
        return outcomes._replace(seconds=seconds, started=started + self._waited)

    def copy(self) -> "IsolatedRunner":
        """Another one, for tasks that run while that of this one waits."""
        other = IsolatedRunner(
            self._place, self._definitions, self._farms, self._shared_data, self._nesting
        )
        other._functions, other.send_output = self._functions, self.send_output
        return other

    def current_stack(self) -> str:
        """The stack of the child, for another thread; empty if there is no child."""
        child = self._child
        # It may end just now.
        with contextlib.suppress(OSError):
            if child is not None:
                child.dump_stack()
                return child.crash_report()
        return ""

    def kill(self) -> None:
        """End the child by force, for another thread; the call that it runs fails."""
        child = self._child
        if child is not None:
            child.kill()

    def cancel(self, task: int) -> None:
        """End the child by force if it runs this task; for another thread."""
        with self._turn:
            if self._running == task:
                self._cancelled = task
                self.kill()

    def close(self) -> None:
        """End the child; a later call would start another one."""
        child = self._child
        if child is None or self._owner != os.getpid():
            return
        self._end_child(child)
        if self._starter is not None:
            self._starter.shutdown()
            self._starter = None
        atexit.unregister(self.close)

    def _end_child(self, child: ChildProcess) -> None:
        with contextlib.suppress(ChannelBroken):
            child.channel.send(messages.encode(Stop()), EXIT_SECONDS)
        child.wait_for_end(LEFT_SECONDS + 2 * TERMINATE_SECONDS + EXIT_SECONDS)
        report_group(str(self._place._replace(child=True)), child.group)
        self._drop()

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()
            child.close()
        while self._building:
            text = f"the process that built it on {self._place} has ended"
            self._shared_data().give_up(self._building.pop(), text, final=False)

    def drop_shared(self, tokens: list[bytes]) -> None:
        """Let the child drop shared data that was freed."""
        child = self._child
        if child is not None and not child.ended:
            with contextlib.suppress(ChannelBroken):
                child.channel.send(messages.encode(Drop(tokens)), SEND_SECONDS)

    def _answer(self, child: ChildProcess, message: Asked) -> None:
        """Answer what the task of a child asks."""
        if isinstance(message, Spawn | Await | Withdraw):
            if self._children is None:
                from taskfarm.worker.child_nesting import ChildTasks

                self._children = ChildTasks(self._nesting())
            started = time.perf_counter()
            for answer, needs in self._children.answers(message):
                if needs:
                    answer = answer._replace(definitions=self._missing_definitions(child, needs))
                child.channel.send(messages.encode(answer), SEND_SECONDS)
            self._waited += time.perf_counter() - started
        else:
            self._share(child, message)

    def _share(self, child: ChildProcess, message: Fetch | Have | Failed) -> None:
        """Give a child shared data, or take over what it has built."""
        shared_data = self._shared_data()
        match message:
            case Fetch():
                child.channel.send(messages.encode(self._shared_for(child, message)), SEND_SECONDS)
            case Have(token, _, location) if token in self._building:
                self._building.discard(token)
                shared_data.adopt(token, location)
            case Failed(token, _, _, text, final) if token in self._building:
                self._building.discard(token)
                shared_data.give_up(token, text, final)

    def _shared_for(self, child: ChildProcess, message: Fetch) -> ToWorker:
        """The answer to a child that needs shared data: the worker gets it first."""
        from taskfarm.protocol.shared import reason_of
        from taskfarm.transport.segments import host_key
        from taskfarm.worker.shared_data import ToBuild

        token = message.token
        try:
            source = self._shared_data().find(token)
        except SharedDataError as error:
            return Unavailable(token, reason_of(error), str(error))
        definitions = self._missing_definitions(child, source.needs)
        if isinstance(source, ToBuild):
            if source.for_host:
                self._building.add(token)
            return Build(token, source.blob, source.for_host, definitions)
        if message.reserved:
            return Give(token, pickle.PickleBuffer(source.segment.view), source.needs, definitions)
        if message.host != host_key():
            # The two cannot open each other's files.
            return Reserve(token, source.segment.view.nbytes)
        return Attach(token, source.segment.location, source.needs, definitions)

    def _count_task(self, max_tasks: int) -> None:
        """Count a task that the child has run; if its function allows no more in one child, end it."""
        child = self._child
        if child is not None:
            child.tasks += 1
            if max_tasks and child.tasks >= max_tasks:
                self._end_child(child)

    def _prepare(self, farm: int, define: Define | None = None, part: Part | None = None) -> None:
        """Make sure that there is a child which has run a farm's initializer and has what a call needs."""
        if self._child is not None and self._child.ended:
            # It died by itself since the last call; that must not cost this one.
            self._drop()
        child = self._child or self._start()
        opening = self._farms.get(farm)
        if opening is not None and farm not in child.farms:
            ended = list(child.farms - self._farms.keys())
            child.farms.difference_update(ended)
            opening = opening._replace(forget=ended, isolate=False)
            before = self._missing(child, [opening.blob])
            reply = self._ask([*before, opening], Limits(PREPARE_SECONDS), "the initializer")
            assert isinstance(reply, Ready)
            if reply.failure is not None:
                raise _Failed(reply.failure)
            child.farms.add(farm)
        if define is None or part is None:
            return
        blobs = [define.blob, *(part.calls if isinstance(part.calls, list) else ())]
        sent = [*self._stale(child), *self._missing(child, blobs)]
        if define.function not in child.functions:
            sent.append(define)
            child.functions.add(define.function)
        if sent:
            # The answer to a barrier tells that all is loaded: the limits are for the call alone.
            self._ask([*sent, _BARRIER], Limits(PREPARE_SECONDS), f"the loading of {define.name}")

    def _missing(self, child: ChildProcess, blobs: Iterable[Blob | None]) -> list[ToWorker]:
        """What a child must be sent before it can load these blobs."""
        sent: list[ToWorker] = []
        path = [entry for entry in sys.path if isinstance(entry, str)]
        if child.path != path:
            child.path = path
            sent.append(SetPath(path))
        needs = dict.fromkeys(number for blob in blobs if blob is not None for number in blob.needs)
        if missing := self._missing_definitions(child, needs):
            sent.append(DefineNames(missing))
        return sent

    def _missing_definitions(self, child: ChildProcess, needs: Iterable[int]) -> Definitions:
        """Those of some definitions that a child does not have; it is about to get them."""
        missing = [number for number in needs if number not in child.definitions]
        child.definitions.update(missing)
        return [(number, *self._definitions[number]) for number in missing]

    def _stale(self, child: ChildProcess) -> list[ToWorker]:
        """What tells a child to forget what the worker has forgotten."""
        functions = child.functions - self._functions.keys()
        definitions = child.definitions - self._definitions.keys()
        if not functions and not definitions:
            return []
        child.functions -= functions
        child.definitions -= definitions
        return [Forget([*functions], [*definitions])]

    def _start(self) -> ChildProcess:
        try:
            self._child = child = self._new_child()
        except OSError as error:
            text = f"no child process can be started on {self._place}: {error}"
            raise self._failed(TaskCrashed(text), "the start of a child process") from None
        if self._owner != os.getpid():
            self._owner = os.getpid()
            atexit.register(self.close)
        self._ask([_BARRIER], Limits(START_SECONDS), "the start of a child process")
        return child

    def _new_child(self) -> ChildProcess:
        place = self._place._replace(child=True)
        if threading.current_thread() is threading.main_thread():
            return ChildProcess(place, self.send_output is not None)
        # Linux ends a child together with the thread that started it, so that thread has to last.
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1, "taskfarm starter")
        return self._starter.submit(ChildProcess, place, self.send_output is not None).result()

    def _ask(self, sent: Iterable[ToWorker], limits: Limits, what: str) -> Message:
        """Send messages and wait for the answer to the last; if that fails, the child is gone."""
        child = self._child
        assert child is not None
        try:
            for message in sent:
                child.channel.send(messages.encode(message), SEND_SECONDS)
            reply = child.wait(limits, self.send_output, lambda message: self._answer(child, message))
            if not isinstance(reply, LimitExceeded):
                if not _answers(message, reply):
                    raise ChannelBroken("it sent an answer to a question that was not asked")
                return reply
            error = self._limit_error(what, limits, reply, isinstance(message, Work))
            if reply.timeout is not None:
                child.dump_stack()
            child.end()
        except ChannelBroken as broken:
            error = self._crash_error(what, child.end(EXIT_SECONDS), broken)
        failed = self._failed(error, what, child.crash_report())
        self._drop()
        raise failed

    def _failed(self, error: TaskError, what: str, report: str = "") -> _Failed:
        failure = capture_exception(error, f"{what} on {self._place._replace(child=True)}")
        return _Failed(failure._replace(trace=failure.trace + report))

    def _limit_error(self, what: str, limits: Limits, exceeded: LimitExceeded, task: bool) -> TaskError:
        ended = f"on {self._place}, so its process was ended"
        if not task:
            return TaskCrashed(f"{what} was not done within {exceeded.timeout:g} s {ended}")
        if exceeded.timeout is not None:
            return TaskTimeout(
                f"{what} passed its limit of {exceeded.timeout:g} s {ended}; raise `timeout=` or make the "
                "task shorter"
            )
        return TaskMemory(
            f"{what} held {exceeded.memory / 1e6:.4g} MB, past its limit of "
            f"{(limits.memory or 0) / 1e6:.4g} MB, {ended}; raise `memory=` or make the task smaller"
        )

    def _crash_error(self, what: str, code: int | None, broken: ChannelBroken) -> TaskCrashed:
        if code is None or code == CONNECTION_LOST:
            return TaskCrashed(
                f"{what} broke the connection between its process and {self._place} ({broken}); the task "
                "must leave alone file descriptors that it did not open"
            )
        return TaskCrashed(f"{what} ended its process on {self._place} {_exit_text(code)}")


def _answers(message: ToWorker, reply: Message) -> bool:
    """Whether a reply answers this message; a task may have written to the connection."""
    match message, reply:
        case Initialize(farm), Ready(answered):
            return farm == answered
        case Work([part]), Results([Outcomes(source, first, 1)]):
            return (source, first) == (part.source, part.first)
    return False


def _exit_text(code: int) -> str:
    """How a process ended, and what to do about it."""
    if code >= 0:
        return f"with exit code {code}; let it return or raise instead"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            "by SIGKILL, perhaps from the system's out-of-memory killer; let it use less memory, or "
            "start fewer ranks on each host"
        )
    if name in _FAULTS:
        return f"by {name}; look for the fault in the compiled code that it calls"
    return f"by {name}; look for what sends it that signal"
