"""Outcomes as the master tells them: values and exceptions."""

from typing import Any, NamedTuple

from taskfarm.errors import ResultNotLoadable
from taskfarm.protocol.describe import hint
from taskfarm.protocol.failures import restore_exception, summarize
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.serialize import load_plain, loads, nbytes
from taskfarm.schedule.policy import OnError


class Completed(NamedTuple):
    """What became of consecutive tasks.

    Attributes
    ----------
    first : int
        Id of the first.
    values : list
        A result for each; None for one that failed.
    failures : dict of int to BaseException
        The exceptions of those that failed, by offset.
    nbytes : int
        Bytes of the pickled results.
    """

    first: int
    values: list[Any]
    failures: dict[int, BaseException]
    nbytes: int

    @classmethod
    def failed(cls, first: int, error: BaseException, count: int = 1) -> "Completed":
        """Tasks that failed for one reason."""
        return cls(first, [None] * count, dict.fromkeys(range(count), error), 0)


def load_outcomes(outcomes: Outcomes) -> Completed:
    """Unpickle outcomes; a result that cannot be unpickled fails its own task alone."""
    failures = {offset: restore_exception(failure) for offset, failure in outcomes.failures.items()}
    if isinstance(outcomes.values, bytes):
        size = len(outcomes.values)
        return Completed(outcomes.first, load_plain(outcomes.values), failures, size)
    values: list[Any] = []
    for offset, blob in enumerate(outcomes.values):
        value = None
        if offset not in failures:
            try:
                value = loads(blob)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failure = ResultNotLoadable(
                    f"what task {outcomes.first + offset} returned cannot be unpickled on rank 0: "
                    f"{summarize(error)}"
                )
                if advice := hint(error):
                    failure.add_note(advice)
                failure.__cause__ = error
                failures[offset] = failure
        values.append(value)
    return Completed(outcomes.first, values, failures, sum(map(nbytes, outcomes.values)))


def apply_on_error(completed: Completed, only: int | None, on_error: OnError) -> Completed:
    """Outcomes with what the task's author wants in place of exceptions.

    Parameters
    ----------
    completed : Completed
        The outcomes.
    only : int or None
        The offset of the one that counts; None: all.
    on_error : OnError
        As in `Policy`.
    """
    if on_error == "raise":
        return completed
    values, left = list(completed.values), dict(completed.failures)
    for offset, error in completed.failures.items():
        if only is not None and offset != only:
            continue
        if not callable(on_error):
            values[offset] = left.pop(offset)
            continue
        try:
            values[offset] = on_error(error)
            del left[offset]
        except Exception as raised:
            left[offset] = raised
    return Completed(completed.first, values, left, completed.nbytes)
