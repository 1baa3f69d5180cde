"""Turns what a task raised into a failure that names the task, its call, attempt, rank and host."""

from typing import Any

from taskfarm.errors import CallNotLoadable, ResultNotPicklable, TaskExited, wrap
from taskfarm.protocol.describe import hint
from taskfarm.protocol.failures import capture_exception, summarize
from taskfarm.protocol.messages import Failure
from taskfarm.worker.context import Place


class RemoteFailures:
    """Makes failures of exceptions.

    Parameters
    ----------
    place : Place
        Rank and host.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def of_task(self, task: int, call: str, attempt: int, error: BaseException) -> Failure:
        """The failure of a task; `call` is its name, or its call with arguments."""
        retry = f", attempt {attempt}," if attempt > 1 else ""
        return self.of(f"task {task} {call}{retry}", error)

    def of(self, what: str, error: BaseException) -> Failure:
        """The failure of anything."""
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            ended = TaskExited(
                f"{what} raised {summarize(error)}, which would end the program or a loop of its "
                "caller; let a task return a value or raise another exception"
            )
            ended.__cause__ = error
            error = ended
        return capture_exception(error, f"{what} on {self._place}")

    def not_loadable(self, what: str, error: BaseException) -> CallNotLoadable:
        """The exception to raise if a part of a call cannot be unpickled."""
        text = f"{what} cannot be unpickled on {self._place}: {summarize(error)}"
        advice = hint(error)
        return wrap(CallNotLoadable, error, f"{text}. {advice}" if advice else text)

    def not_picklable(self, name: str, result: Any, error: BaseException) -> ResultNotPicklable:
        """The exception to raise if a result cannot be pickled."""
        return wrap(
            ResultNotPicklable,
            error,
            f"the result of {name}, of type {type(result).__qualname__}, cannot be pickled: "
            f"{summarize(error)}. Return plain data or numpy arrays instead",
        )
