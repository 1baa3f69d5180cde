"""The failures of tasks because of other tasks: what they need, or what they have returned, has failed."""

from concurrent.futures import CancelledError

from taskfarm.errors import DependencyFailed
from taskfarm.protocol.failures import heading_of, summary_of

MAX_STEPS = 4
"""Steps of a chain of failures that a message shows."""

NOT_RUN = " was not run: "
"""Stands in a message between a task and the reason."""

HAS_NO_RESULT = " has no result: "
"""Stands in a message between a task that has returned a future and the reason."""


class NoResult(Exception):
    """Raised where a future is pickled whose call is known to have failed.

    Parameters
    ----------
    error : BaseException
        Its exception.
    call : str
        The call, if the exception does not name it.
    """

    def __init__(self, error: BaseException, call: str) -> None:
        super().__init__(error, call)
        self._error, self._call = error, call

    def of(self, task: str, why: str) -> DependencyFailed | CancelledError:
        """What becomes of the task that needs the result, or has returned the future."""
        if isinstance(self._error, CancelledError):
            return self._error
        call = heading_of(self._error) or self._call
        return because_of(self._error, task, why, call, f"{call} failed")


def because_of(error: BaseException, task: str, why: str, root: str, told: str) -> DependencyFailed:
    """The failure of a task because of another one.

    Parameters
    ----------
    error : BaseException
        The failure of the other one, which may have failed because of a third.
    task : str
        The task.
    why : str
        Stands between the task and the reason.
    root, told : str
        The other task, and what is said of it, if it has failed by itself.
    """
    if isinstance(error, DependencyFailed):
        reasons = str(error).split(why)
        if len(reasons) > MAX_STEPS:
            reasons[1:-1] = ["..."]
        failed = DependencyFailed(why.join([task, *reasons]), task, error)
        failed.__cause__ = error.__cause__
        return failed
    failed = DependencyFailed(f"{task}{why}{told}: {summary_of(error)}", task, (root,))
    failed.__cause__ = error
    return failed
