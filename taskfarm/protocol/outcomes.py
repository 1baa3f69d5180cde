"""Outcomes as the master delivers them: values and exceptions."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from taskfarm import interrupts
from taskfarm.errors import ResultLost, ResultNotLoadable, TaskExited, wrap
from taskfarm.protocol import shared
from taskfarm.protocol.consecutive import runs
from taskfarm.protocol.describe import hint
from taskfarm.protocol.failures import restore_exception, summarize
from taskfarm.protocol.messages import Blob, Outcomes
from taskfarm.protocol.reduction import spread
from taskfarm.protocol.serialize import load_plain, loads, nbytes
from taskfarm.schedule.policy import OnError
from taskfarm.schedule.spans import SINGLES, new_tuple


class Completed(NamedTuple):
    """The outcomes of consecutive tasks.

    Attributes
    ----------
    first : int
        Id of the first task.
    values : list
        The result of each task; None for one that failed. Of a reduction, a `Partial` in the place of the
        first task that it covers, and None in those of the others.
    failures : dict of int to BaseException
        The exceptions of the tasks that failed, by offset.
    nbytes : int
        Size of the pickled results, in bytes.
    """

    first: int
    values: list[Any]
    failures: dict[int, BaseException]
    nbytes: int

    @classmethod
    def failed(cls, first: int, error: BaseException, count: int = 1) -> "Completed":
        """The outcomes of `count` tasks that all failed with the same exception."""
        return cls(first, [None] * count, dict.fromkeys(range(count), error), 0)


class Packed:
    """The result of a single call, which nobody has asked for yet: it is unpickled for who does.

    Attributes
    ----------
    blob : Blob
        The pickled result.
    handles : sequence of Shared
        The handles of shared data to which it refers, so that they are not freed before.
    kept : KeptResult or None
        If a worker keeps the result: what finds it.
    """

    __slots__ = ("blob", "handles", "kept")

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.handles = shared.alive(shared.tokens_in(blob._replace(needs=()))) if shared.OPEN else ()
        self.kept: Any = None

    def load(self, task: int | None, timeout: float | None = None) -> Any:
        """Unpickle the result of a task.

        Raises
        ------
        ResultNotLoadable
            It cannot be unpickled.
        BaseException
            What a signal has raised meanwhile: see `taskfarm.interrupts`.
        """
        try:
            return _load(self.blob if self.kept is None else self.kept.fetch(timeout))
        except (ResultLost, TimeoutError):
            raise
        except BaseException as error:
            if interrupts.is_interrupt(error):
                raise
            raise _not_loadable(task, error) from error


def load_at_once(outcomes: Outcomes) -> Completed | None:
    """Unpickle outcomes, if that calls no code of users; else None."""
    values = outcomes.values
    if outcomes.failures or not (type(values) is bytes or outcomes.source == SINGLES):
        return None
    if type(values) is bytes and outcomes.covers is None:
        return new_tuple(Completed, (outcomes.first, load_plain(values), {}, len(values)))
    return load_outcomes(outcomes)


def result_nbytes(outcomes: Outcomes) -> int:
    """Size of the pickled results, in bytes."""
    if isinstance(outcomes.values, bytes):
        return len(outcomes.values)
    return sum(map(nbytes, outcomes.values))


def load_outcomes(outcomes: Outcomes) -> Completed:
    """Unpickle outcomes; a result that cannot be unpickled fails only its own task.

    Results of single calls that are not plain are left `Packed`.

    Raises
    ------
    BaseException
        Only what a signal has raised meanwhile: see `taskfarm.interrupts`.
    """
    failures: dict[int, BaseException] = {}
    for offset, failure in outcomes.failures.items():
        failures[offset] = restore_exception(failure)
    if isinstance(outcomes.values, bytes):
        values = load_plain(outcomes.values)
    elif outcomes.source == SINGLES:
        values = [
            None if offset in failures else Packed(blob) for offset, blob in enumerate(outcomes.values)
        ]
    else:
        values = []
        for place, blob in enumerate(outcomes.values):
            offset, size = (place, 1) if outcomes.covers is None else outcomes.covers[place]
            value = None
            if offset not in failures:
                try:
                    value = _load(blob)
                except BaseException as error:
                    if interrupts.is_interrupt(error):
                        raise
                    raised = _not_loadable(outcomes.first + offset, error)
                    failures.update(dict.fromkeys(range(offset, offset + size), raised))
            values.append(value)
    if outcomes.covers is not None:
        values = spread(values, outcomes.covers, outcomes.count)
    return Completed(outcomes.first, values, failures, result_nbytes(outcomes))


@interrupts.interruptible
def _load(blob: Blob) -> Any:
    return loads(blob)


def _not_loadable(task: int | None, error: BaseException) -> ResultNotLoadable:
    text = f"the result of task {task} cannot be unpickled on rank 0: {summarize(error)}"
    failure = wrap(ResultNotLoadable, error, text)
    if advice := hint(error):
        failure.add_note(advice)
    return failure


def apply_on_error(completed: Completed, only: int | None, on_error: OnError) -> Completed:
    """Replace exceptions as the ``on_error`` option of their task specifies.

    Parameters
    ----------
    completed : Completed
        The outcomes.
    only : int or None
        The offset of the only outcome to process; None: all.
    on_error : OnError
        As in `Policy`. What a callable raises takes the place of the exception that it was given.

    Raises
    ------
    BaseException
        Only what a signal has raised meanwhile: see `taskfarm.interrupts`.
    """
    if on_error == "raise":
        return completed
    values = list(completed.values)
    failures = dict(completed.failures)
    for offset, error in completed.failures.items():
        if only is not None and offset != only:
            continue
        if not callable(on_error):
            values[offset] = failures.pop(offset)
            continue
        try:
            values[offset] = _call(on_error, error)
            del failures[offset]
        except Exception as raised:
            failures[offset] = raised
        except BaseException as raised:
            if interrupts.is_interrupt(raised):
                raise
            failures[offset] = _exited(raised)
    return Completed(completed.first, values, failures, completed.nbytes)


@interrupts.interruptible
def _call(on_error: Callable[[BaseException], object], error: BaseException) -> object:
    return on_error(error)


def _exited(raised: BaseException) -> TaskExited:
    exited = TaskExited(
        f"on_error raised {summarize(raised)}, which would end the program; let it return a value or "
        "raise another exception"
    )
    exited.__cause__ = raised
    return exited


def split_around(completed: Completed, offsets: Collection[int]) -> Iterator[Completed]:
    """The outcomes without those at `offsets`, as runs of consecutive tasks."""
    if not offsets:
        yield completed
        return
    start = 0
    for offset in [*sorted(offsets), len(completed.values)]:
        if offset > start:
            failures = {
                failed - start: error
                for failed, error in completed.failures.items()
                if start <= failed < offset
            }
            yield Completed(completed.first + start, completed.values[start:offset], failures, 0)
        start = offset + 1


def group_consecutive(
    ready: Mapping[int, object], errors: Mapping[int, BaseException]
) -> Iterator[Completed]:
    """Outcomes by offset, grouped into consecutive runs; `first` of each group is an offset."""
    for run in runs(sorted(ready.keys() | errors.keys())):
        failures = {offset - run.start: errors[offset] for offset in run if offset in errors}
        yield Completed(run.start, [ready.get(offset) for offset in run], failures, 0)
