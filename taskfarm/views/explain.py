"""Tells another shell why a task waits; it asks through a file beside the status file."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskfarm.errors import UsageError
from taskfarm.views import status
from taskfarm.views.own_files import write_json

if TYPE_CHECKING:
    from taskfarm.master.master import Master
    from taskfarm.views.status import StatusFile

WAITING = 20.0
"""Seconds that the other shell waits for the answer."""


class ExplainRequests:
    """Answers the requests in a file beside the status file: an observer of the master.

    Parameters
    ----------
    path : str
        The status file.
    master : Master
        The master that knows the tasks.
    file : StatusFile
        What shows the answers.
    """

    def __init__(self, path: str, master: "Master", file: "StatusFile") -> None:
        self._request = _request(path)
        self._master = master
        self._file = file
        with contextlib.suppress(OSError, ValueError):
            _read_request(self._request)
            os.unlink(self._request)

    def __call__(self, now: float) -> None:
        with contextlib.suppress(OSError, ValueError):
            task, number = _read_request(self._request)
            os.unlink(self._request)
            self._file.explanations = {str(number): self._explain(task)}
            self._file.write()

    def _explain(self, task: int) -> str:
        from taskfarm.schedule.explain import explain

        master = self._master
        with master.lock:
            name = master.outstanding.pending.name_of(task)
            return f"task {task}{name and ' '}{name} {explain(master.scheduler, task, master.clock.now())}"


def ask(path: str, task: int, show: Callable[[str], object] = print) -> int:
    """Ask a run why a task waits, and show the answer.

    Parameters
    ----------
    path : str
        The status file of the run.
    task : int
        The task.
    show : callable
        Called with the answer.

    Raises
    ------
    UsageError
        There is no such run, or no answer.
    """
    if status.read(path)["ended"]:
        raise UsageError(f"the run of {path!r} has ended, so nothing waits")
    number = time.time_ns()
    try:
        write_json(_request(path), [task, number], _is_request)
    except OSError as error:
        raise UsageError(f"cannot write {_request(path)!r}: {error.strerror or error}") from error
    deadline = time.monotonic() + WAITING
    while time.monotonic() < deadline:
        time.sleep(0.05)
        answer = status.read(path).get("explanations", {}).get(str(number))
        if answer is not None:
            show(answer)
            return 0
    raise UsageError(f"no answer within {WAITING:g} s: `top {path}` shows whether the run continues")


def _request(path: str) -> str:
    return f"{path}.why"


def _read_request(path: str) -> tuple[int, int]:
    """The task that a file asks for, and the number of the request; raises ValueError if it is none."""
    with open(path) as file:
        request = json.load(file)
    if not (isinstance(request, list) and len(request) == 2 and all(type(one) is int for one in request)):
        raise ValueError("no request")
    return request[0], request[1]


def _is_request(path: str) -> bool:
    try:
        _read_request(path)
    except (OSError, ValueError):
        return False
    return True
