"""Ctrl-C and other signals as exceptions of the main thread, but never inside the farm's own code.

A handler of a signal runs between any two steps of the main thread. An exception there would leave a table
half changed, and tasks would be lost. So the handler looks at the stack: inside the farm's code the
exception is postponed until the farm waits, or until the farm's code has been left, but by no more than a
second. Users' code that the farm calls (tasks of a serial run, callbacks, unpickling) is interrupted at
once; the functions that call it are marked as `interruptible`, and deal with what they raise. Iterables of
maps are interrupted only after that second: a generator could not go on. All this costs nothing while no
signal arrives.
"""

import _signal  # type: ignore[import-not-found]
import _thread
import concurrent.futures
import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeVar

from taskfarm.environment import PACKAGE

LONGEST = 1.0
"""Seconds after which a postponed exception is raised wherever the main thread is: it may wait for ever."""

RETRY_INTERVAL = 5e-3
"""Seconds between two looks whether the main thread has left the farm's code."""

UNSEEN_SECONDS = 0.1
"""Seconds after which a signal that was sent is sent once more.

Python does not see one that comes just before the main thread blocks in a call of C.
"""

ECHO_SECONDS = 1.0
"""Seconds after that within which a second signal was not a user's: the first one was seen after all."""

_PARTS = (
    *("compat", "interrupts", "job", "journal", "master", "protocol", "schedule", "shell", "transport"),
    "worker",
)

_PROTECTED = (*(PACKAGE + part for part in _PARTS), concurrent.futures._base.__file__)
"""Beginnings of the names of the files whose code must not be interrupted."""

_handler_of = _signal.getsignal
"""What `signal.getsignal` calls; that spends microseconds on turning a function into an enum member."""

_interruptible: set[int] = set()

_MARK = "_taskfarm_interrupt"

_attributes: Callable[[BaseException], dict[str, Any]] = vars(BaseException)["__dict__"].__get__
"""The attributes of an exception, whatever its class has overridden."""

F = TypeVar("F", bound=Callable[..., Any])


def interruptible(function: F) -> F:
    """Mark a function of the farm that calls users' code, and that an exception may leave at any step."""
    _interruptible.add(id(function.__code__))
    return function


class _Interrupts:
    """The state of this process; only the main thread changes `pending`."""

    def __init__(self) -> None:
        self.pending: BaseException | None = None
        self.since = 0.0
        self.number = 0
        self.retried = False
        self.retries = 0
        self.resent = -math.inf
        self.installed = False
        self.shielded = False
        self.observer: Callable[[], None] | None = None


_state = _Interrupts()
_sending = threading.Lock()


def calls_users_code(frame: FrameType) -> bool:
    """Whether a frame is that of a function marked as `interruptible`."""
    return id(frame.f_code) in _interruptible


def pending() -> bool:
    """Whether an exception waits to be raised in the main thread."""
    return _state.pending is not None


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception came from a signal, and not from the code that was running."""
    return _MARK in _attributes(error)


def _in_main_thread() -> bool:
    return _thread.get_ident() == threading.main_thread().ident


def interrupt(error: BaseException, frame: FrameType | None) -> None:
    """For the handler of a signal: raise an exception at `frame`, or as soon as that does no harm."""
    if _protected(frame):
        postpone(error)
    else:
        _raise(error)


def postpone(error: BaseException) -> None:
    """Raise an exception in the main thread when it waits for the farm or has left the farm's code."""
    if _state.pending is not None:
        if type(error) is not KeyboardInterrupt:
            # Why the run is to end says more than an interruption.
            _state.pending = error
        return
    _state.since = time.monotonic()
    _state.number += 1
    _state.pending = error
    with contextlib.suppress(RuntimeError):  # the interpreter is ending
        _thread.start_new_thread(_retry, (_state.number,))


def observe(seen: Callable[[], None]) -> None:
    """Call `seen` each time that the main thread handles SIGINT."""
    _state.observer = seen


def num_retries() -> int:
    """How often SIGINT was sent again for what was postponed: these signals come from nobody else."""
    return _state.retries


def raise_pending() -> None:
    """Raise what was postponed; called where the main thread waits for the farm."""
    if _state.pending is not None and _in_main_thread():
        error, _state.pending = _state.pending, None
        try:
            _raise(error)
        finally:
            del error


def _raise(error: BaseException) -> NoReturn:
    """Raise an exception, marked as one that a signal has brought."""
    _attributes(error)[_MARK] = True
    try:
        raise error
    finally:
        # Otherwise the exception and its traceback would keep each other, and all that it refers to, alive.
        del error


def _protected(frame: FrameType | None) -> bool:
    """Whether the innermost code of the farm on a stack must not be interrupted."""
    if _state.shielded:
        return True
    while frame is not None:
        code = frame.f_code
        if id(code) in _interruptible:
            return False
        if code.co_filename.startswith(_PROTECTED):
            return True
        frame = frame.f_back
    return False


def _retry(number: int) -> None:
    """In a thread of its own: send the signal again and again until the exception has been raised."""
    main = threading.main_thread().ident
    sent = -math.inf
    while True:
        time.sleep(RETRY_INTERVAL)
        with _sending:
            if _state.number != number or _state.pending is None or main is None:
                return
            # One at a time: a second one, for which the handler has cleared the mark, would seem a user's.
            now = time.monotonic()
            if _handler_of(signal.SIGINT) is on_sigint and (
                not _state.retried or now - sent > UNSEEN_SECONDS
            ):
                if _state.retried:
                    _state.resent = now
                sent = now
                _state.retried = True
                _state.retries += 1
                signal.pthread_kill(main, signal.SIGINT)


def on_sigint(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: raise KeyboardInterrupt, or what was postponed."""
    if not _state.retried and time.monotonic() - _state.resent < ECHO_SECONDS:
        _state.resent = -math.inf
        return
    if _state.observer is not None:
        _state.observer()
    if not _state.retried:
        interrupt(KeyboardInterrupt(), frame)
        return
    _state.retried = False
    if _state.pending is None:
        return
    if not _protected(frame) or time.monotonic() - _state.since > LONGEST:
        raise_pending()


@contextlib.contextmanager
def suppress_all() -> Iterator[None]:
    """Suppress whatever users' code raises, but not what a signal has raised."""
    try:
        yield
    except BaseException as error:
        if is_interrupt(error):
            raise


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Treat all code as the farm's own: that of a fake worker, which would be another process."""
    before, _state.shielded = _state.shielded, True
    try:
        yield
    finally:
        _state.shielded = before


def install() -> None:
    """Replace Python's own handler of SIGINT, which a notebook puts back for each cell; no other one."""
    if _handler_of(signal.SIGINT) is signal.default_int_handler and _in_main_thread():
        _state.retried = False
        signal.signal(signal.SIGINT, on_sigint)
        _state.installed = True


def restore() -> None:
    """Put back Python's own handler, if `install` has replaced it; raises what is postponed."""
    if _state.installed and _handler_of(signal.SIGINT) is on_sigint and _in_main_thread():
        with _sending:
            # Python's own handler would take a signal that is on its way for a user's.
            ending = time.monotonic() + UNSEEN_SECONDS
            while _state.retried and time.monotonic() < ending:
                time.sleep(1e-3)
            _state.installed = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise_pending()
