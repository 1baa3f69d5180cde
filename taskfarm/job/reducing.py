"""`reduce`: the results of a map, combined on the workers and on rank 0."""

from collections.abc import Callable
from typing import Any

from taskfarm.job.decorator import Task, derived_task
from taskfarm.job.gathering import GatheringRun
from taskfarm.protocol.messages import IN_BAND
from taskfarm.protocol.outcomes import Completed
from taskfarm.protocol.reduction import (
    COVERED,
    NO_INITIAL,
    Operation,
    Partial,
    Reduction,
    call,
    reducing,
    reducing_key,
)
from taskfarm.protocol.task_base import unwrap_task

MOST_ALIGNED, ALIGNED_BYTES = 1 << 12, 1 << 24
"""With a journal, arguments are drawn in blocks of so many, or of about so many bytes, if that is fewer."""

GROUP, GROUP_SECONDS = 8, 1.0
"""Large results are combined on their worker in groups of so many tasks, of so many seconds in all."""

LARGE_ARGUMENTS = 1 << 20
"""Tasks whose arguments are larger than this, in bytes, are not grouped."""


def task_to_reduce(function: Callable[..., Any], operation: Operation) -> Task[..., Any]:
    """The task that a reduction maps: `function`, whose results workers combine."""
    called = reducing(unwrap_task(function), operation)
    return derived_task(function, called, lambda key: reducing_key(key, operation))


class ReductionRun(GatheringRun):
    """A running map whose results are combined as they arrive."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reduction: Reduction
        self._groups = False

    def reduce(self, operation: Operation, initial: Any) -> Any:
        """Wait for the value of all results; see `Farm.reduce`."""
        self._reduction = Reduction(operation)
        self.gather()
        if not self._reduction:
            if initial is NO_INITIAL:
                raise TypeError("reduce() of empty iterable with no initial value: pass initial=")
            return initial
        value = self._reduction.result()
        return value if initial is NO_INITIAL else call(operation, initial, value)

    def place(self, position: int, completed: Completed) -> int:
        """Combine values with their neighbours."""
        for value in [value for value in completed.values if value is not COVERED]:
            if type(value) is Partial:
                self._reduction.add(position, value.size, value.value, owned=True)
                position += value.size
            else:
                # What `on_error` has put in the place of an exception, for example.
                self._reduction.add(position, 1, value)
                position += 1
        return len(completed.values)

    def _chunk(self) -> int:
        """Tasks with large results travel in groups, so that the worker can combine them."""
        if self._options.chunksize or self._first_nbytes > LARGE_ARGUMENTS:
            return self._options.chunksize or 0
        estimate = self._master.scheduler.estimate(self._function.id)
        if estimate.result_bytes >= IN_BAND:
            self._groups = True
        if not self._groups or estimate.seconds > GROUP_SECONDS:
            return 0
        most = min(GROUP, GROUP_SECONDS / max(estimate.seconds, 1e-9))
        if self._arguments.size is not None:
            most = min(most, self._arguments.size / (4 * max(1, self._master.num_workers)))
        return _power_of_two(int(most))

    def _room(self) -> int:
        """So many that groups begin where the tree of combinations does.

        With a journal, blocks that are the same in each run: a later one finds whole partial values.
        """
        room, drawn = super()._room(), self._progress.drawn
        if not room or not drawn:
            return room
        if self._master.outstanding.journal is not None:
            return min(drawn & -drawn, self._largest)
        if (chunk := self._chunk()) > 1:
            room = max(room - (drawn + room) % chunk, chunk - drawn % chunk)
        return room

    @property
    def _largest(self) -> int:
        """Arguments in a block: a power of two."""
        return _power_of_two(min(MOST_ALIGNED, ALIGNED_BYTES // max(1, self._first_nbytes)))


def _power_of_two(most: int) -> int:
    """The largest power of two up to `most`; at least 1."""
    return 1 << max(0, most.bit_length() - 1)
