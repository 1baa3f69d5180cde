"""Results of a batch for other calls of the same batch that need them."""

from typing import Any

from taskfarm import interrupts
from taskfarm.protocol.messages import Blob, Failure
from taskfarm.protocol.serialize import dump_plain, dumps, nbytes, plain_nbytes

MAX_BYTES = 1 << 26
"""Most bytes of results that are pickled here before the batch ends: they stay in memory until then."""


class _Missing(Exception):
    """A call needs a result that is not here, so it does not start."""


class ChainedResults:
    """The results of the calls of a batch, pickled for those calls of it that need them.

    Each call gets a copy of its own, as it would by way of rank 0. What was pickled here is sent to rank 0,
    too, so all who need it get the same.
    """

    def __init__(self) -> None:
        self._parts: dict[int, tuple[list[Any], dict[int, Failure]]] = {}
        self._blobs: dict[int, Blob] = {}
        self._nbytes = 0

    def begin(self, first: int, results: list[Any], failures: dict[int, Failure]) -> None:
        """Look for results in this list from now on, as it grows, except where calls have failed."""
        self._parts[first] = (results, failures)

    def forget(self, first: int) -> None:
        """Have no results of a part: its tasks have submitted tasks, and may have returned futures."""
        del self._parts[first]

    def pickled(self, task: int) -> Blob | None:
        """The result of a task, if a call of this batch has needed it."""
        return self._blobs.get(task)

    def completed(self, blob: Blob, usable: bool) -> Blob:
        """A call with the results that it was sent without; none of this batch is `usable` if false.

        Raises
        ------
        Exception
            One is not here, for which `is_missing` is true.
        """
        if not any(result is None for _, result in blob.results):
            return blob
        if not usable:
            raise _Missing
        results = tuple(
            (task, self._copy(task) if result is None else result) for task, result in blob.results
        )
        return blob._replace(results=results)

    def is_missing(self, error: BaseException) -> bool:
        """Whether an exception says that a result is not here."""
        return type(error) is _Missing

    def _copy(self, task: int) -> Blob:
        """The pickled result of a task, with memory that a call may change."""
        blob = self._blobs.get(task)
        if blob is None:
            value = self._value(task)
            if plain_nbytes([value]) is not None:
                return Blob(dump_plain(value), [])
            blob = self._pickle(value)
            self._nbytes += nbytes(blob)
            if self._nbytes > MAX_BYTES:
                raise _Missing
            self._blobs[task] = blob
        return blob._replace(buffers=[bytearray(memoryview(buffer).cast("B")) for buffer in blob.buffers])

    def _value(self, task: int) -> Any:
        for first, (results, failures) in self._parts.items():
            if first <= task < first + len(results):
                if task - first in failures:
                    break
                return results[task - first]
        raise _Missing

    def _pickle(self, value: Any) -> Blob:
        try:
            return dumps(value)
        except BaseException as error:
            if interrupts.is_interrupt(error):
                raise
            # It fails again when the result is sent, and that is then the failure of its task.
            raise _Missing from error
