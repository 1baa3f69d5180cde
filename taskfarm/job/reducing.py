"""`reduce`: the results of a map, combined on the workers and on rank 0."""

from collections.abc import Callable
from typing import Any

from taskfarm.job.decorator import Task
from taskfarm.job.gathering import GatheringRun
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.outcomes import Completed
from taskfarm.protocol.reduction import COVERED, Operation, Partial, Reduction, call, reducing, reducing_key
from taskfarm.protocol.task_base import is_task, unwrap_task

NO_INITIAL = object()
"""Stands for an initial value that was not given."""

MOST_ALIGNED, ALIGNED_BYTES = 1 << 12, 1 << 24
"""With a journal, arguments are drawn in blocks of so many, or of about so many bytes, if that is fewer."""


def task_to_reduce(function: Callable[..., Any], operation: Operation) -> Task[..., Any]:
    """The task that a reduction maps: `function`, whose results workers combine."""
    options = dict(function._options) if is_task(function) else {}  # type: ignore[attr-defined]
    options["name"] = name_of(function)
    if options.get("key") is not None:
        options["key"] = reducing_key(options["key"], operation)
    return Task(reducing(unwrap_task(function), operation), options)


class ReductionRun(GatheringRun):
    """A running map whose results are combined as they arrive."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reduction: Reduction

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

    def place(self, position: int, completed: Completed) -> None:
        """Combine values with their neighbours."""
        for value in [value for value in completed.values if value is not COVERED]:
            if type(value) is Partial:
                self._reduction.add(position, value.size, value.value, owned=True)
                position += value.size
            else:
                # The value of a task that ran alone, or what `on_error` has put in the place of an exception.
                self._reduction.add(position, 1, value)
                position += 1

    def _room(self) -> int:
        """With a journal, blocks that are the same in each run: a later one finds whole partial values."""
        room, drawn = super()._room(), self._progress.drawn
        if not room or not drawn or self._master.outstanding.journal is None:
            return room
        return min(drawn & -drawn, self._largest)

    @property
    def _largest(self) -> int:
        """Arguments in a block: a power of two."""
        fitting = ALIGNED_BYTES // max(1, self._first_nbytes)
        return min(MOST_ALIGNED, 1 << max(0, fitting.bit_length() - 1))
