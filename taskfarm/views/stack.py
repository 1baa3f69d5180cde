"""Reports the call stacks of running tasks to another shell, which asks through a file."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.protocol.messages import Hello
from taskfarm.views import status
from taskfarm.views.requests import RequestFile

if TYPE_CHECKING:
    from taskfarm.master.master import Master

PATIENCE = 3.0
"""Seconds that a worker has to answer; it cannot while its task holds the interpreter lock."""

WAITING = 20.0
"""Seconds that the other shell waits for all answers."""


class StackRequests:
    """Answers the requests in a file beside the status file: an observer of the master.

    Parameters
    ----------
    path : str
        The status file.
    master : Master
        The master whose workers are asked.
    """

    def __init__(self, path: str, master: "Master") -> None:
        self._requests = _requests(path)
        self._master = master
        self._asked: dict[int, float] = {}
        self._next = 0.0
        # What was asked of an earlier run.
        self._requests.take()

    def __call__(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + status.EVERY
        if (ranks := self._requests.take()) is not None:
            self._ask([rank for rank in ranks if rank in self._master.workers.connected], now)
        for worker, since in list(self._asked.items()):
            if worker in self._master.output.stacks:
                del self._asked[worker]
            elif now - since > PATIENCE:
                del self._asked[worker]
                self._signal(worker, self._master.workers.hellos[worker])

    def _ask(self, workers: Sequence[int], now: float) -> None:
        for worker in workers:
            self._asked[worker] = now
            self._master.ask_for_stack(worker)

    def _signal(self, worker: int, hello: Hello) -> None:
        """Make a worker that cannot answer print its stack: SIGQUIT needs no interpreter lock."""
        text = f"rank {worker} cannot answer: its task holds the interpreter lock. "
        if hello.host == socket.gethostname() and _is_worker(hello.pid):
            os.kill(hello.pid, signal.SIGQUIT)
            text += "SIGQUIT made it print its stack on the standard error of the run"
        else:
            text += (
                f"`kill -QUIT {hello.pid}` on {hello.host} makes it print its stack on the standard error "
                "of the run"
            )
        self._master.output.stacks[worker] = text
        say(text)


def ask(path: str, ranks: Sequence[int], show: Callable[[str], object] = print) -> int:
    """Ask a run for the call stacks of its workers, and show them.

    Parameters
    ----------
    path : str
        The status file of the run.
    ranks : sequence of int
        Ranks of the workers; if empty, the worker that has not answered for longest.
    show : callable
        Called with each answer.

    Raises
    ------
    UsageError
        There is no such run, no such worker, or no answer.
    """
    snapshot = status.read(path)
    if snapshot["ended"]:
        raise UsageError(f"the run of {path!r} has ended")
    asked = list(ranks) or [task["worker"] for task in snapshot["running"][:1]]
    if not asked:
        raise UsageError("no worker is busy: name the ranks that you want to see")
    if wrong := [rank for rank in asked if rank >= snapshot["ranks"]]:
        raise UsageError(f"there is no rank {wrong[0]}: the workers are ranks 1 to {snapshot['ranks'] - 1}")
    # A status file still holds the answers to earlier requests.
    before = {str(rank): snapshot["stacks"].get(str(rank)) for rank in asked}
    _requests(path).write(asked)
    deadline = time.monotonic() + WAITING
    while time.monotonic() < deadline and before:
        time.sleep(0.1)
        stacks: dict[str, Any] = status.read(path)["stacks"]
        for rank in [rank for rank in before if stacks.get(rank, before[rank]) != before[rank]]:
            show(stacks[rank])
            del before[rank]
    if before:
        raise UsageError(
            f"no answer from rank {', '.join(before)} within {WAITING:g} s: `top {path}` shows whether "
            "the run continues and which workers it has lost"
        )
    return 0


def _requests(path: str) -> RequestFile:
    return RequestFile(f"{path}.ask", _is_request)


def _is_request(content: Any) -> bool:
    """Whether it is a list of ranks."""
    return isinstance(content, list) and all(isinstance(rank, int) for rank in content)


def _is_worker(pid: int) -> bool:
    """Whether the process with this id, on this host, is a rank of taskfarm."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"taskfarm" in file.read()
    return False
