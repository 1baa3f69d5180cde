"""A worker's supervised child process: a call that crashes it, or passes a limit, fails alone."""

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from taskfarm.errors import TaskCrashed, TaskError, TaskMemory, TaskTimeout
from taskfarm.protocol import messages
from taskfarm.protocol.failures import capture_exception
from taskfarm.protocol.messages import (
    NO_BLOB,
    Define,
    Failure,
    Initialize,
    Limits,
    Outcomes,
    Part,
    Ready,
    Results,
    Stop,
    ToWorker,
    Work,
)
from taskfarm.worker.channel import LOST, Broken
from taskfarm.worker.child_process import LEAVING, Child, Passed
from taskfarm.worker.context import Place
from taskfarm.worker.output_capture import Say

STARTING = 120.0
"""Seconds within which a child must have started."""

PREPARING = 900.0
"""Seconds that it may take to run the initializer, or to load a function."""

SENDING = 60.0
"""Seconds within which a child must read what it is sent."""

_BARRIER = Initialize(0, [], None)
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")


class _Failed(Exception):
    """The present call, or what goes before it, has failed; the argument is the `Failure`."""


class Isolation:
    """Runs calls in a child process, which is started when it is needed and kept between calls.

    Parameters
    ----------
    place : Place
        Rank and host of the worker.

    Attributes
    ----------
    say : callable or None
        Takes what tasks in the child print and log; None: it goes where the worker's own goes.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._functions: dict[int, Define] = {}
        self._opening: Initialize | None = None
        self._child: Child | None = None
        self._owner = 0
        self.say: Say | None = None
        self._starter: ThreadPoolExecutor | None = None

    def define(self, message: Define) -> None:
        """Take in a function; a child gets it before the first call that needs it."""
        self._functions[message.function] = message._replace(limits=None)

    def forget(self, functions: Iterable[int]) -> None:
        """Drop functions."""
        for function in functions:
            self._functions.pop(function, None)

    def initialize(self, message: Initialize) -> Failure | None:
        """Take in the initializer of a farm, for every child; returns how it failed, if it did.

        It is called at once if only children call it, else before the first call.
        """
        self._opening = message._replace(isolate=False)
        if message.blob is None or not message.isolate:
            return None
        try:
            self._prepare()
        except _Failed as failed:
            return failed.args[0]  # type: ignore[no-any-return]
        except BaseException:
            self._drop()
            raise
        return None

    def run(self, part: Part, limits: Limits) -> Outcomes:
        """Run a part of one call, whatever becomes of the process that does it."""
        started = time.perf_counter()
        define = self._functions[part.function]
        try:
            self._prepare(define)
            reply = self._ask([Work([part])], limits, f"task {part.first} {define.name}")
            assert isinstance(reply, Results)
            outcomes = reply.parts[0]
        except _Failed as failed:
            outcomes = Outcomes(part.source, part.first, 1, [NO_BLOB], {0: failed.args[0]}, 0.0)
        except BaseException:
            self._drop()
            raise
        return outcomes._replace(seconds=time.perf_counter() - started, started=started)

    def where(self) -> str:
        """What the child is doing, for another thread; empty if there is none."""
        child = self._child
        # It may end just now.
        with contextlib.suppress(OSError):
            if child is not None:
                child.ask_where()
                return child.report()
        return ""

    def close(self) -> None:
        """End the child; a later call would start another one."""
        child = self._child
        if child is None or self._owner != os.getpid():
            return
        with contextlib.suppress(Broken):
            child.channel.send(messages.encode(Stop()), LEAVING)
        self._drop(LEAVING)
        if self._starter is not None:
            self._starter.shutdown()
            self._starter = None
        atexit.unregister(self.close)

    def _drop(self, seconds: float = 0.0) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(seconds)
            child.close()

    def _prepare(self, define: Define | None = None) -> None:
        """See that there is a child, which has run the initializer and has the function."""
        if self._child is not None and self._child.ended:
            # It has died of itself since the last call, which must not cost this one.
            self._drop()
        child = self._child or self._start()
        opening = self._opening
        if opening is not None and child.farm != opening.farm:
            reply = self._ask([opening], Limits(PREPARING), "the initializer")
            assert isinstance(reply, Ready)
            if reply.failure is not None:
                self._drop()
                raise _Failed(reply.failure)
            child.farm = opening.farm
        if define is not None and define.function not in child.functions:
            stale = list(child.functions - self._functions.keys())
            child.functions -= {*stale}
            # The answer to a barrier tells that the function is loaded: its limits are for the call.
            sent: list[ToWorker] = [define._replace(forget=stale), _BARRIER]
            self._ask(sent, Limits(PREPARING), f"the loading of {define.name}")
            child.functions.add(define.function)

    def _start(self) -> Child:
        try:
            self._child = child = self._new_child()
        except OSError as error:
            text = f"no child process can be started on {self._place}: {error}"
            raise self._failed(TaskCrashed(text), "the start of a child process") from None
        if self._owner != os.getpid():
            self._owner = os.getpid()
            atexit.register(self.close)
        self._ask([_BARRIER], Limits(STARTING), "the start of a child process")
        return child

    def _new_child(self) -> Child:
        place = self._place._replace(child=True)
        if threading.current_thread() is threading.main_thread():
            return Child(place, self.say is not None)
        # Linux ends a child with the thread that started it, so that thread has to last.
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1, "taskfarm starter")
        return self._starter.submit(Child, place, self.say is not None).result()

    def _ask(self, sent: Iterable[ToWorker], limits: Limits, what: str) -> messages.Message:
        """Send messages and wait for the answer to the last; if that fails, the child has gone."""
        child = self._child
        assert child is not None
        try:
            for message in sent:
                child.channel.send(messages.encode(message), SENDING)
            reply = child.wait(limits, self.say)
            if not isinstance(reply, Passed):
                if not _fits(message, reply):
                    raise Broken("an answer came to what was not asked")
                return reply
            error = self._passed(what, limits, reply, isinstance(message, Work))
            if reply.timeout is not None:
                child.ask_where()
            child.end()
        except Broken as broken:
            error = self._crashed(what, child.end(LEAVING), broken)
        failed = self._failed(error, what, child.report())
        self._drop()
        raise failed

    def _failed(self, error: TaskError, what: str, report: str = "") -> _Failed:
        failure = capture_exception(error, f"{what} on {self._place._replace(child=True)}")
        return _Failed(failure._replace(trace=failure.trace + report))

    def _passed(self, what: str, limits: Limits, passed: Passed, task: bool) -> TaskError:
        ended = f"on {self._place}, so its process was ended"
        if not task:
            return TaskCrashed(f"{what} was not done within {passed.timeout:g} s {ended}")
        if passed.timeout is not None:
            return TaskTimeout(
                f"{what} passed its limit of {passed.timeout:g} s {ended}; raise `timeout=` or make the "
                "task shorter"
            )
        return TaskMemory(
            f"{what} held {passed.held / 1e6:.4g} MB, past its limit of {(limits.memory or 0) / 1e6:.4g} "
            f"MB, {ended}; raise `memory=` or make the task smaller"
        )

    def _crashed(self, what: str, code: int | None, broken: Broken) -> TaskCrashed:
        if code is None or code == LOST:
            return TaskCrashed(
                f"{what} broke the connection of its process with {self._place} ({broken}); let it leave "
                "alone the file descriptors that it did not open"
            )
        return TaskCrashed(f"{what} ended its process on {self._place} {_manner(code)}")


def _fits(message: ToWorker, reply: messages.Message) -> bool:
    """Whether a reply is one to this message; a task may have written to the connection."""
    match message, reply:
        case Initialize(farm), Ready(answered):
            return farm == answered
        case Work([part]), Results([Outcomes(source, first, 1)]):
            return (source, first) == (part.source, part.first)
    return False


def _manner(code: int) -> str:
    """How a process ended, and what to do about it."""
    if code >= 0:
        return f"with exit code {code}; let it return or raise instead"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            "by SIGKILL, which may have been the system's out-of-memory killer; let it use less memory, or "
            "start fewer ranks on each host"
        )
    if name in _FAULTS:
        return f"by {name}; look for the fault in the compiled code that it calls"
    return f"by {name}; look for who sends it that signal"
