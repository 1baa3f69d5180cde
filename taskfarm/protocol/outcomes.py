"""Outcomes as the master tells them: values and exceptions."""

from typing import Any, NamedTuple

from taskfarm.errors import ResultNotLoadable
from taskfarm.protocol.describe import hint
from taskfarm.protocol.failures import restore, summarize
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.serialize import load_plain, loads, nbytes
from taskfarm.schedule.policy import OnError


class Settled(NamedTuple):
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
    def failed(cls, first: int, error: BaseException, count: int = 1) -> "Settled":
        """Tasks that failed for one reason."""
        return cls(first, [None] * count, dict.fromkeys(range(count), error), 0)


def read(outcomes: Outcomes) -> Settled:
    """Unpickle outcomes; a result that cannot be unpickled fails its own task alone."""
    failures = {offset: restore(failure) for offset, failure in outcomes.failures.items()}
    if isinstance(outcomes.values, bytes):
        size = len(outcomes.values)
        return Settled(outcomes.first, load_plain(outcomes.values), failures, size)
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
    return Settled(outcomes.first, values, failures, sum(map(nbytes, outcomes.values)))


def mended(settled: Settled, only: int | None, on_error: OnError) -> Settled:
    """Outcomes with what the task's author wants in place of exceptions.

    Parameters
    ----------
    settled : Settled
        The outcomes.
    only : int or None
        The offset of the one that counts; None: all.
    on_error : OnError
        As in `Policy`.
    """
    if on_error == "raise":
        return settled
    values, left = list(settled.values), dict(settled.failures)
    for offset, error in settled.failures.items():
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
    return Settled(settled.first, values, left, settled.nbytes)
