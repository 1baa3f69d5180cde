"""What happens in a process that is forked from this one: it must leave the farm and MPI alone."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NoReturn
from weakref import WeakMethod, ref

_hooks: "list[ref[Callable[[], object]]]" = []
_handlers: dict[int, Any] = {}
_masks: dict[int, Any] = {}
_resending: set[int] = set()
_closed: set[int] = set()
_forked: list[tuple[float, int, int]] = []

HOOK_SECONDS = 10.0
"""Seconds after a fork within which all hooks have run."""

AGAIN_SECONDS = 1e-3
"""Seconds after which a signal comes again that reached a process while it was being forked."""

UNSEEN_SECONDS = 0.1
"""Seconds after which SIGINT comes once more: Python misses one that comes just before a call blocks."""


def in_forked_children(method: Callable[[], object]) -> None:
    """Call a bound method in every process that is forked from this one, while its object lives."""
    _hooks[:] = [hook for hook in _hooks if hook() is not None]
    _hooks.append(WeakMethod(method))


def close_in_forked_children(descriptors: Iterable[int]) -> None:
    """Close file descriptors in every process that is forked from this one."""
    _closed.update(descriptors)


def handle(number: int, handler: Any) -> None:
    """Set the handler of a signal in this process, but not in those that are forked from it."""
    signal.signal(number, handler)
    _handlers[number] = handler


def dump_stacks_on_sigquit(descriptor: int) -> None:
    """Let SIGQUIT write the stack here, even of a task that holds the interpreter lock."""
    import faulthandler

    faulthandler.register(signal.SIGQUIT, descriptor)
    _handlers.setdefault(signal.SIGQUIT, None)


def _block() -> None:
    # A signal that reaches the forked process before its handlers are reset must not be lost.
    if _handlers:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _unblock() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin_child() -> None:
    """Restore the default handlers, except where users have set their own, and call the hooks."""
    if _handlers:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
    caller = sys._getframe().f_back
    _resending.clear()
    _forked[:] = [(time.monotonic(), id(caller), caller.f_lasti)] if caller is not None else []
    for number, handler in _handlers.items():
        if number == signal.SIGQUIT:
            sys.modules["faulthandler"].unregister(number)
        elif signal.getsignal(number) == handler:
            default = _interrupt if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    _handlers.clear()
    for descriptor in _closed:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _closed.clear()
    for hook in _hooks:
        if (method := hook()) is not None:
            method()
    pending = signal.sigpending()
    try:
        _unblock()
    except BaseException:
        # Here Python would ignore what a handler raises, such as KeyboardInterrupt.
        threading.Thread(target=_send_again, args=(pending,), daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Python does on SIGINT, but not while hooks run: Python ignores what they raise."""
    if not _in_hook(frame):
        _resending.clear()
        signal.default_int_handler(number, frame)
    elif not _resending:
        _resending.add(number)
        threading.Thread(target=_send_until_handled, args=(number,), daemon=True).start()


def _in_hook(frame: FrameType | None) -> bool:
    """Whether the frame that called fork is still in that call, and `frame` is that of a hook."""
    outer = frame.f_back if frame is not None else None
    while outer is not None:
        for forked, caller, step in _forked:
            if id(outer) == caller and outer.f_lasti == step:
                return time.monotonic() - forked < HOOK_SECONDS
        outer = outer.f_back
    return False


def _send_again(pending: Iterable[int]) -> None:
    time.sleep(AGAIN_SECONDS)
    for number in pending:
        os.kill(os.getpid(), number)


def _send_until_handled(number: int) -> None:
    _send_again([number])
    time.sleep(UNSEEN_SECONDS)
    while number in _resending and signal.getsignal(number) is _interrupt:
        os.kill(os.getpid(), number)
        time.sleep(UNSEEN_SECONDS)


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_begin_child)


def exit_forked_child(code: int) -> NoReturn:
    """End a forked process, without MPI and without exit functions."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)
