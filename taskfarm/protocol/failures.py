"""How an exception travels: made into a `Failure` where it was raised, and back into an exception."""

import concurrent.futures
import contextlib
import traceback
from itertools import dropwhile, groupby
from types import FrameType

from taskfarm.environment import PACKAGE
from taskfarm.errors import ExceptionNotPicklable, RemoteTraceback
from taskfarm.protocol.describe import hint
from taskfarm.protocol.messages import Failure
from taskfarm.protocol.serialize import dumps, loads

_FUTURES = concurrent.futures._base.__file__


def summarize(error: BaseException) -> str:
    """Type and text of an exception on one line, whatever its ``__str__`` does."""
    name = type(error).__qualname__
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "(its text could not be made)"
    return f"{name}: {text}" if text else name


class _FoldedFrames(traceback.StackSummary):
    """Frames of a traceback; those of taskfarm in a row are one line."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary) -> str:
        """One frame as Python prints it, or how many of taskfarm's follow."""
        if frame_summary.lineno:
            return super().format_frame_summary(frame_summary)
        return f"  [{frame_summary.name}]\n"


def format_exception(error: BaseException) -> str:
    """The traceback as Python prints it, causes included, but with taskfarm's own frames folded.

    Where all frames are taskfarm's, they are shown: that is a fault of its own.
    """
    whole = traceback.TracebackException.from_exception(error)
    found, seen = [whole], set()
    while found:
        one = found.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.stack = _fold(one.stack)
            found += [link for link in (one.__cause__, one.__context__) if link is not None]
            found += getattr(one, "exceptions", None) or []
    return "".join(whole.format())


def format_stack(frame: FrameType) -> str:
    """Where a thread is that runs a task, as Python prints it, from the task's first frame on."""
    frames = list(dropwhile(lambda one: not _is_ours(one), traceback.extract_stack(frame)))
    return "".join(_fold(traceback.StackSummary.from_list(frames)).format())


def _fold(frames: traceback.StackSummary) -> traceback.StackSummary:
    """Leave out the outermost frames that are taskfarm's, and make one of others of its in a row."""
    if all(map(_is_ours, frames)):
        return frames
    kept: list[traceback.FrameSummary] = []
    for ours, group in groupby(frames, _is_ours):
        if not ours:
            kept += group
        elif kept:
            count = len(list(group))
            name = f"{count} frame{'s' * (count > 1)} of taskfarm"
            kept.append(traceback.FrameSummary("", 0, name, lookup_line=False, line=""))
    return _FoldedFrames(kept)


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(PACKAGE) or frame.filename == _FUTURES


def capture_exception(error: BaseException, where: str) -> Failure:
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
        text = format_exception(error)
    except BaseException:
        text = f"{summary} (its traceback could not be formatted)\n"
    if advice := hint(error):
        text += f"{advice}\n"
    try:
        blob = dumps(error)
        loads(blob)
    except BaseException as cause:
        blob = dumps(_stand_in(summary, cause))
    return Failure(blob, summary, f"{where}\n{text}", "\n".join(filter(None, (where, advice))))


def restore_exception(failure: Failure) -> BaseException:
    """Make the exception again, with the remote traceback as its cause; this cannot fail."""
    error: BaseException
    try:
        error = loads(failure.exception)
        error.__cause__ = RemoteTraceback(failure.trace)
    except BaseException as cause:
        error = _stand_in(failure.summary, cause)
        error.__cause__ = RemoteTraceback(failure.trace)
    with contextlib.suppress(Exception):
        error.add_note(failure.note)
    return error


def _stand_in(summary: str, cause: BaseException) -> ExceptionNotPicklable:
    """What is raised in place of an exception that cannot travel."""
    return ExceptionNotPicklable(
        f"the task raised an exception that cannot be sent between processes: {summary} "
        f"({summarize(cause)}). Make its class picklable: keep the arguments of __init__ in `args`, "
        "or define __reduce__"
    )
