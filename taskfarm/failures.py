"""How an exception travels: made into a `Failure` where it was raised, and back into an exception."""

import os
import sys
import traceback
from types import TracebackType

from taskfarm.errors import ExceptionNotPicklable, RemoteTraceback
from taskfarm.serialize import dumps, loads
from taskfarm.task import Failure

_OURS = os.path.dirname(__file__) + os.sep


def summarize(error: BaseException) -> str:
    """Type and text of an exception on one line, whatever its ``__str__`` does."""
    name = type(error).__qualname__
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "(its text could not be made)"
    return f"{name}: {text}" if text else name


def user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Skip the outermost frames that are taskfarm's own."""
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def capture(error: BaseException, where: str) -> Failure:
    """Make an exception ready to travel; this cannot fail.

    Parameters
    ----------
    error : BaseException
        What a task raised.
    where : str
        The task, rank and host: the head of the remote traceback.
    """
    summary = summarize(error)
    try:
        text = _format(error)
    except BaseException:
        text = f"{summary} (its traceback could not be formatted)\n"
    try:
        blob = dumps(error)
        loads(blob)
    except BaseException as cause:
        blob = dumps(_stand_in(summary, cause))
    return Failure(blob, summary, f"{where}\n{text}")


def restore(failure: Failure) -> BaseException:
    """Make the exception again, with the remote traceback as its cause; this cannot fail."""
    error: BaseException
    try:
        error = loads(failure.exception)
        error.__cause__ = RemoteTraceback(failure.trace)
    except BaseException as cause:
        error = _stand_in(failure.summary, cause)
        error.__cause__ = RemoteTraceback(failure.trace)
    return error


def _format(error: BaseException) -> str:
    """The traceback as Python prints it, from the user's first frame on, causes included."""
    link: BaseException | None = error
    seen = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = user_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return "".join(traceback.format_exception(error))


def _stand_in(summary: str, cause: BaseException) -> ExceptionNotPicklable:
    """What is raised in place of an exception that cannot travel."""
    return ExceptionNotPicklable(
        f"the task raised an exception that cannot be sent between processes: {summary} "
        f"({summarize(cause)}). Make its class picklable: keep the arguments of __init__ in `args`, "
        "or define __reduce__"
    )


def missing_module_hint(error: BaseException) -> str:
    """What to do about a module that this process cannot import; empty for other errors."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    places = ", ".join(place or os.getcwd() for place in sys.path)
    return (
        f". Install the module {error.name!r} for the workers too, or put it beside the job; "
        f"looked in {places}"
    )
