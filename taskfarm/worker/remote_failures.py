"""Turns what a task raised into a failure that names the task, its call, attempt, rank and host."""

from typing import Any, NoReturn

from taskfarm.console import write
from taskfarm.errors import (
    CallNotLoadable,
    ResultLost,
    ResultNotPicklable,
    SharedDataError,
    TaskExited,
    TaskFarmError,
    wrap,
)
from taskfarm.fork_hooks import exit_forked_child
from taskfarm.protocol.describe import hint
from taskfarm.protocol.failures import (
    capture_exception,
    ends_program,
    format_exception,
    heading_of,
    summarize,
)
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
        if ends_program(error):
            ended = TaskExited(
                f"{what} raised {summarize(error)}, which would end the program or a loop of its "
                "caller; let a task return a value or raise another exception"
            )
            ended.__cause__ = error
            error = ended
        failure = capture_exception(error, f"{what} on {self._place}")
        return failure._replace(missing=error.token) if type(error) is ResultLost else failure

    def not_loadable(self, what: str, error: BaseException) -> TaskFarmError:
        """The exception to raise if a part of a call cannot be unpickled."""
        if isinstance(error, SharedDataError | ResultLost):
            # It says by itself what is missing, and why.
            return error
        text = f"{what} cannot be unpickled on {self._place}: {summarize(error)}"
        advice = hint(error)
        return wrap(CallNotLoadable, error, f"{text}. {advice}" if advice else text)

    def of_result(self, task: int, name: str, result: Any, error: BaseException) -> Failure:
        """The failure of a task whose result cannot be pickled."""
        from taskfarm.protocol.dependency_failures import HAS_NO_RESULT, NoResult

        if not isinstance(error, NoResult):
            return self.of_task(task, name, 1, self.not_picklable(name, result, error))
        failed = error.of(f"task {task} {name}", HAS_NO_RESULT)
        failure = self.of_task(task, name, 1, failed)
        if (cause := failed.__cause__) is None:
            return failure
        return failure._replace(cause=capture_exception(cause, heading_of(cause)))

    def not_picklable(self, name: str, result: Any, error: BaseException) -> ResultNotPicklable:
        """The exception to raise if a result cannot be pickled."""
        return wrap(
            ResultNotPicklable,
            error,
            f"the result of {name}, of type {type(result).__qualname__}, cannot be pickled: "
            f"{summarize(error)}. {hint(error) or 'Return plain data or numpy arrays instead'}",
        )


class ForkedChildFailures(RemoteFailures):
    """In a process that a task has forked, what the task raises there ends the process."""

    def of(self, what: str, error: BaseException) -> NoReturn:
        """End this process as Python would."""
        code = error.code if isinstance(error, SystemExit) else 1
        if code is None or isinstance(code, int):
            text = "" if isinstance(error, SystemExit) else format_exception(error)
        else:
            code, text = 1, f"{code}\n"
        write(text, end="")
        exit_forked_child(code or 0)
