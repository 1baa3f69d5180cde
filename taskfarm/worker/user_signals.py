"""Keeps the signal handlers and timers of tasks from raising exceptions where no task runs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection
from signal import getitimer
from types import FrameType
from typing import Any

from taskfarm.environment import PACKAGE
from taskfarm.interrupts import calls_users_code
from taskfarm.worker.context import Place

TIMERS = {
    signal.ITIMER_REAL: ("ITIMER_REAL", signal.SIGALRM),
    signal.ITIMER_VIRTUAL: ("ITIMER_VIRTUAL", signal.SIGVTALRM),
    signal.ITIMER_PROF: ("ITIMER_PROF", signal.SIGPROF),
}
"""The name of each timer, and its signal; ``signal.alarm`` sets the first."""

_REAL, _VIRTUAL, _PROF = TIMERS

AGAIN_SECONDS = 1e-3
"""Seconds after which a signal comes again that arrived in the middle of something."""


def running_timers() -> Collection[int]:
    """The timers that are running now."""
    if getitimer(_REAL)[0] or getitimer(_VIRTUAL)[0] or getitimer(_PROF)[0]:
        return [timer for timer in TIMERS if getitimer(timer)[0]]
    return ()


class Timers:
    """Switches off the timers that tasks have left running, here or in the job's own process.

    Parameters
    ----------
    place : Place
        This process, for warnings.
    """

    def __init__(self, place: Place) -> None:
        self._warnings = _Warnings(place)
        self._only_tasks = False
        # Whether no timer is running: the last batch has left none, and only the farm's code has run since.
        self._none_runs = False

    def expect_only_tasks(self) -> None:
        """Note that only tasks start timers in this process, and what `ask_again` is called after."""
        self._only_tasks = True

    def ask_again(self) -> None:
        """Note that something else may have started timers, or a task that has not ended."""
        self._none_runs = False

    def before_batch(self) -> Collection[int]:
        """The timers that are running before a batch."""
        none_runs, self._none_runs = self._none_runs, False
        return () if none_runs else running_timers()

    def switch_off_others(self, before: Collection[int]) -> list[str]:
        """Switch off all timers that were not running before a batch; returns their names."""
        if not (running := running_timers()):
            self._none_runs = self._only_tasks
            return []
        others = [timer for timer in running if timer not in before]
        return [TIMERS[timer][0] for timer in others if _switch_off(timer)]

    def warn(self, words: Collection[str], task: int, name: str) -> None:
        """Name the timers that were switched off after a batch; `task` is one of its tasks."""
        for word in words:
            line = f"task {task} {name} left {word} running; it was switched off after the task"
            self._warnings.warn((word, name), line)


class UserSignals:
    """Guards a worker against the signal handlers that tasks and initializers set.

    Python runs a handler wherever the main thread is. An exception that it raises between two tasks, or
    while a message is sent, would end the worker.

    Parameters
    ----------
    place : Place
        This process, for warnings.

    Attributes
    ----------
    ended : bool
        Whether no further task runs here.
    """

    def __init__(self, place: Place) -> None:
        self._warnings = _Warnings(place)
        self.ended = False
        self._set = signal.signal
        self._get = signal.getsignal
        signal.signal = self._set_guarded
        signal.getsignal = self._get_unguarded

    def _set_guarded(self, signalnum: int, handler: Any) -> Any:
        """Do what `signal.signal` does, but guard the handler."""
        before = self._set(signalnum, _Guarded(handler, self) if callable(handler) else handler)
        return before.handler if isinstance(before, _Guarded) else before

    def _get_unguarded(self, signalnum: int) -> Any:
        """Do what `signal.getsignal` does, without the guard."""
        handler = self._get(signalnum)
        return handler.handler if isinstance(handler, _Guarded) else handler

    def end(self) -> None:
        """Switch off all timers; from now on no handler raises anything."""
        self.ended = True
        for timer in TIMERS:
            _switch_off(timer)

    def warn(self, key: object, line: str) -> None:
        """Print a warning, once for each key."""
        self._warnings.warn(key, line)


class _Warnings:
    """Prints warnings, each once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._printed: set[object] = set()

    def warn(self, key: object, line: str) -> None:
        """Print a warning, once for each key."""
        if key not in self._printed:
            self._printed.add(key)
            with contextlib.suppress(OSError):
                os.write(2, f"taskfarm: {self._place}: {line}\n".encode(errors="replace"))


def _switch_off(timer: int) -> bool:
    """Switch a timer off, unless its signal has a handler of compiled code, such as a profiler's."""
    _, number = TIMERS[timer]
    if signal.getsignal(number) is None:
        return False
    signal.setitimer(timer, 0)
    return True


class _Guarded:
    """A user's handler, whose exceptions reach tasks and initializers only."""

    def __init__(self, handler: Any, signals: UserSignals) -> None:
        self.handler = handler
        self._signals = signals

    def __call__(self, number: int, frame: FrameType | None) -> None:
        ours = _innermost_of_ours(frame)
        if not self._signals.ended and (ours is None or calls_users_code(ours)):
            self.handler(number, frame)
        elif not self._signals.ended and _in_task(ours):
            # The task prints, for instance: the signal comes again when the task's own code goes on.
            threading.Thread(target=_send_again, args=(number,), daemon=True).start()
        else:
            try:
                self.handler(number, frame)
            except BaseException as error:
                self._warn(number, error)

    def _warn(self, number: int, error: BaseException) -> None:
        handler = getattr(self.handler, "__qualname__", type(self.handler).__qualname__)
        name = signal.Signals(number).name
        raised = type(error).__name__
        self._signals.warn(
            (number, handler), f"the handler {handler} of {name} raised {raised} outside of its task"
        )


def _send_again(number: int) -> None:
    time.sleep(AGAIN_SECONDS)
    # A real signal also wakes the main thread from a sleep.
    if (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, number)


def _innermost_of_ours(frame: FrameType | None) -> FrameType | None:
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame


def _in_task(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE) and calls_users_code(frame):
            return True
        frame = frame.f_back
    return False
