"""Where a stuck task is, on request: from another shell, by way of the status file."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.master.master import Master
from taskfarm.protocol.messages import Hello, ReportStack
from taskfarm.views import status

PATIENCE = 3.0
"""Seconds that a worker has to answer; one whose task holds the interpreter cannot."""

WAITING = 20.0
"""Seconds that a request waits for all answers."""


class StackRequests:
    """Takes requests that lie beside the status file: an observer of the master.

    Parameters
    ----------
    path : str
        The status file.
    master : Master
        Whose workers.
    """

    def __init__(self, path: str, master: Master) -> None:
        self._request = _request(path)
        self._master = master
        self._asked: dict[int, float] = {}
        self._next = 0.0
        with contextlib.suppress(OSError):
            os.unlink(self._request)

    def __call__(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + status.EVERY
        with contextlib.suppress(OSError, ValueError):
            with open(self._request) as file:
                wanted = json.load(file)
            os.unlink(self._request)
            self._ask([worker for worker in wanted if worker in self._master.workers.connected], now)
        for worker, since in list(self._asked.items()):
            if worker in self._master.output.stacks:
                del self._asked[worker]
            elif now - since > PATIENCE:
                del self._asked[worker]
                self._cannot(worker, self._master.workers.hellos[worker])

    def _ask(self, workers: Sequence[int], now: float) -> None:
        for worker in workers:
            self._master.output.stacks.pop(worker, None)
            self._asked[worker] = now
            self._master.workers.send(worker, ReportStack())

    def _cannot(self, worker: int, hello: Hello) -> None:
        """The worker does not answer: a signal makes it print its stack, whoever holds the interpreter."""
        text = f"rank {worker} cannot answer: its task holds the interpreter. "
        if hello.host == socket.gethostname() and _is_worker(hello.pid):
            os.kill(hello.pid, signal.SIGQUIT)
            text += "It was made to print its stack on the standard error of the run"
        else:
            text += (
                f"`kill -QUIT {hello.pid}` on {hello.host} makes it print its stack on the standard error "
                "of the run"
            )
        self._master.output.stacks[worker] = text
        say(text)


def ask(path: str, ranks: Sequence[int], show: Callable[[str], object] = print) -> int:
    """Ask a run where its workers are, and show their answers.

    Parameters
    ----------
    path : str
        Its status file.
    ranks : sequence of int
        The workers; if empty, the one that has not answered for longest.
    show : callable
        Takes the text.

    Raises
    ------
    UsageError
        There is no such run, no such worker, or no answer.
    """
    found = status.read(path)
    if found["ended"]:
        raise UsageError(f"the run of {path!r} has ended")
    wanted = list(ranks) or [task["worker"] for task in found["running"][:1]]
    if not wanted:
        raise UsageError("no worker is busy: name the ranks that you want to see")
    if wrong := [rank for rank in wanted if rank >= found["ranks"]]:
        raise UsageError(f"there is no rank {wrong[0]}: the workers are ranks 1 to {found['ranks'] - 1}")
    before = {str(rank): found["stacks"].get(str(rank)) for rank in wanted}
    new = f"{_request(path)}.{os.getpid()}.new"
    with open(new, "w") as file:
        json.dump(wanted, file)
    os.replace(new, _request(path))
    deadline = time.monotonic() + WAITING
    while time.monotonic() < deadline and before:
        time.sleep(0.1)
        stacks: dict[str, Any] = status.read(path)["stacks"]
        for rank in [rank for rank in before if stacks.get(rank, before[rank]) != before[rank]]:
            show(stacks[rank])
            del before[rank]
    if before:
        raise UsageError(
            f"no answer from rank {', '.join(before)} within {WAITING:g} s: `top {path}` says whether the "
            "run goes on and which ranks it has"
        )
    return 0


def _request(path: str) -> str:
    return f"{path}.ask"


def _is_worker(pid: int) -> bool:
    """Whether a process of this number is one of a farm, seen from here."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"taskfarm" in file.read()
    return False
