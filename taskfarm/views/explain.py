"""Tells another shell why a task waits; it asks through a file beside the status file."""

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskfarm.errors import UsageError
from taskfarm.views import status
from taskfarm.views.requests import RequestFile

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
        self._requests = _requests(path)
        self._master = master
        self._file = file
        # What was asked of an earlier run.
        self._requests.take()

    def __call__(self, now: float) -> None:
        if (request := self._requests.take()) is not None:
            task, number = request
            with contextlib.suppress(OSError, ValueError):
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
    _requests(path).write([task, number])
    deadline = time.monotonic() + WAITING
    while time.monotonic() < deadline:
        time.sleep(0.05)
        answer = status.read(path).get("explanations", {}).get(str(number))
        if answer is not None:
            show(answer)
            return 0
    raise UsageError(f"no answer within {WAITING:g} s: `top {path}` shows whether the run continues")


def _requests(path: str) -> RequestFile:
    return RequestFile(f"{path}.why", _is_request)


def _is_request(content: Any) -> bool:
    """Whether it is a task and the number of the request."""
    return isinstance(content, list) and len(content) == 2 and all(type(one) is int for one in content)
