"""Exceptions in messages: captured as a `Failure` where they are raised, and restored on rank 0."""

import concurrent.futures
import traceback
from itertools import dropwhile, groupby
from types import FrameType
from typing import Any

from taskfarm import interrupts
from taskfarm.environment import PACKAGE
from taskfarm.errors import ExceptionNotPicklable, RemoteTraceback, unmixed
from taskfarm.protocol.describe import hint
from taskfarm.protocol.messages import Failure
from taskfarm.protocol.serialize import dumps, loads

_FUTURES = concurrent.futures._base.__file__
_CAUSE, _CONTEXT, _TRACEBACK = map(
    vars(BaseException).__getitem__, ("__cause__", "__context__", "__traceback__")
)


def summarize(error: BaseException) -> str:
    """Type and text of an exception on one line, whatever its ``__str__`` does."""
    name = type(error).__qualname__
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "(its text could not be formatted)"
    return f"{name}: {text}" if text else name


def ends_program(error: object) -> bool:
    """Whether raising this would end the program or a loop of its caller: it is no usual exception.

    `isinstance` would ask the object itself, which may answer anything.
    """
    kind = type(error)
    return not issubclass(kind, Exception) or issubclass(kind, StopIteration)


class _FoldedFrames(traceback.StackSummary):
    """Frames of a traceback; consecutive frames of taskfarm are folded into one line."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary) -> str:
        """One frame as Python prints it, or the number of folded frames."""
        if frame_summary.lineno:
            return super().format_frame_summary(frame_summary)
        return f"  [{frame_summary.name}]\n"


def format_exception(error: BaseException) -> str:
    """The traceback as Python prints it, causes included, but with taskfarm's own frames folded.

    A traceback with only taskfarm's frames is not folded: the error is in taskfarm itself.
    """
    root = traceback.TracebackException.from_exception(error)
    unvisited: list[Any] = [root]
    seen: set[int] = set()
    while unvisited:
        current = unvisited.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        # Python itself prints no heading above an empty traceback, such as that of a syntax error.
        current.stack = _fold(current.stack) or None
        for linked in (current.__cause__, current.__context__):
            if linked is not None:
                unvisited.append(linked)
        unvisited += getattr(current, "exceptions", None) or []
    return "".join(root.format())


def format_stack(frame: FrameType) -> str:
    """The stack of a thread that runs a task, as Python prints it, from the task's first frame on."""
    frames = list(dropwhile(lambda summary: not _is_internal(summary), traceback.extract_stack(frame)))
    return "".join(_fold(traceback.StackSummary.from_list(frames)).format())


def _fold(frames: traceback.StackSummary) -> traceback.StackSummary:
    """Drop the outermost frames of taskfarm, and fold every later run of them into one."""
    if all(map(_is_internal, frames)):
        return frames
    kept: list[traceback.FrameSummary] = []
    for internal, group in groupby(frames, _is_internal):
        if not internal:
            kept += group
        elif kept:
            count = len(list(group))
            noun = "frame" if count == 1 else "frames"
            name = f"{count} {noun} of taskfarm"
            kept.append(traceback.FrameSummary("", 0, name, lookup_line=False, line=""))
    return _FoldedFrames(kept)


def _is_internal(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(PACKAGE) or frame.filename == _FUTURES


def capture_exception(error: BaseException, heading: str) -> Failure:
    """Convert an exception into a form that can be sent; this never raises.

    Parameters
    ----------
    error : BaseException
        The exception that a task raised.
    heading : str
        The task, rank and host: the first line of the remote traceback.
    """
    summary = summarize(error)
    _release_memory(error)
    try:
        text = format_exception(error)
    except BaseException:
        text = f"{summary} (its traceback could not be formatted)\n"
    if advice := hint(error):
        text += f"{advice}\n"
    try:
        blob = dumps(error)
        _check_type(loads(blob))
    except BaseException as cause:
        blob = dumps(unmixed(error) or _stand_in(summary, cause))
    note = f"{heading}\n{advice}" if advice else heading
    return Failure(blob, summary, f"{heading}\n{text}", note)


def _release_memory(error: BaseException | None) -> None:
    """If memory ran out, drop the local variables of the failed call: what follows needs memory, too."""
    # Nothing is asked of the exception itself, which may answer anything.
    chain: dict[int, BaseException] = {}
    while error is not None and id(error) not in chain:
        chain[id(error)] = error
        cause = _CAUSE.__get__(error)
        error = _CONTEXT.__get__(error) if cause is None else cause
    if any(issubclass(type(one), MemoryError) for one in chain.values()):
        for one in chain.values():
            traceback.clear_frames(_TRACEBACK.__get__(one))


def restore_exception(failure: Failure) -> Exception:
    """Restore the exception, with the remote traceback as its cause.

    Raises
    ------
    BaseException
        Only what a signal has raised meanwhile: see `taskfarm.interrupts`.
    """
    try:
        return annotated(_load(failure), failure)
    except BaseException as cause:
        if interrupts.is_interrupt(cause):
            raise
        return annotated(_stand_in(failure.summary, cause), failure)


@interrupts.interruptible
def _load(failure: Failure) -> Exception:
    error = loads(failure.exception)
    _check_type(error)
    return error  # type: ignore[no-any-return]


def _check_type(error: object) -> None:
    """Raise TypeError for what a job could not catch as an exception of its task."""
    if ends_program(error):
        name = type(error).__qualname__
        raise TypeError(f"its pickle gives an object of type {name}, which is no exception of a task")


def annotated(error: Exception, failure: Failure) -> Exception:
    """An exception with the remote traceback of a failure as its cause."""
    # The methods of BaseException itself: a class may have overridden them.
    cause: Exception = RemoteTraceback(failure.trace, failure.summary)
    if failure.cause is not None:
        cause = restore_exception(failure.cause)
    _CAUSE.__set__(error, cause)
    if failure.note:
        with interrupts.suppress_all():
            BaseException.add_note(error, failure.note)
    return error


def remote_cause(error: BaseException) -> RemoteTraceback | None:
    """The remote traceback of an exception, if it has one; calls no code of its class."""
    cause = _CAUSE.__get__(error)
    return cause if isinstance(cause, RemoteTraceback) else None


def summary_of(error: BaseException) -> str:
    """Type and text of an exception on one line, as its worker has formatted them if it had one."""
    cause = remote_cause(error)
    return (cause and cause.summary) or summarize(error)


def heading_of(error: BaseException) -> str:
    """The task, rank and host of an exception that a worker has sent; empty for any other."""
    cause = remote_cause(error)
    return cause.tb.partition("\n")[0] if cause else ""


def notes_of(error: BaseException) -> str:
    """The notes of an exception, one a line."""
    try:
        return "\n".join(map(str, BaseException.__getattribute__(error, "__notes__")))
    except BaseException:
        return ""


def _stand_in(summary: str, cause: BaseException) -> ExceptionNotPicklable:
    """The exception to raise in place of one that cannot be sent."""
    return ExceptionNotPicklable(
        f"the task raised an exception that cannot be sent between processes: {summary} "
        f"({summarize(cause)}). Make its class picklable: keep the arguments of __init__ in `args`, "
        "or define __reduce__"
    )
