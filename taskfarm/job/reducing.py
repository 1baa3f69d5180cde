"""`reduce`: the results of a map, combined on the workers and on rank 0."""

from collections.abc import Callable
from typing import Any

from taskfarm.job.decorator import Task, derived_task
from taskfarm.job.gathering import GatheringRun
from taskfarm.protocol.messages import IN_BAND, Held
from taskfarm.protocol.outcomes import Completed
from taskfarm.protocol.reduction import (
    LARGE,
    Operation,
    Partial,
    Reduction,
    reducing,
    reducing_key,
)
from taskfarm.protocol.task_base import unwrap_task
from taskfarm.transport.segments import free_memory

MOST_ALIGNED, ALIGNED_BYTES = 1 << 12, 1 << 24
"""With a journal, arguments are drawn in blocks of so many, or of about so many bytes, if that is fewer."""

MOST_DRAWN = 1 << 14
"""Arguments that are drawn at once, at most: meanwhile workers wait, and no results are combined."""

GROUP, GROUP_SECONDS = 8, 1.0
"""Large results are combined on their worker in groups of so many tasks, of so many seconds in all."""

LARGE_ARGUMENTS = 1 << 20
"""Tasks whose arguments are larger than this, in bytes, are not grouped."""


def task_to_reduce(function: Callable[..., Any], operation: Operation) -> Task[..., Any]:
    """The task that a reduction maps: `function`, whose results workers combine."""
    called = reducing(unwrap_task(function), operation)
    return derived_task(function, called, lambda key: reducing_key(key, operation))


PATIENCE_SECONDS, MAX_PATIENCE_SECONDS = 1.0, 60.0
"""Bounds of the time for which rank 0 waits for the next large result by position."""

ROOM = 4
"""Rank 0 takes another large result only if there is memory for so many of them."""


class ReductionRun(GatheringRun):
    """A running map whose results are combined as they arrive."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reduction: Reduction
        self._groups = self._elementwise = False
        self._offers: dict[int, tuple[int, Held]] = {}
        self._asked: tuple[int, int] | None = None
        self._since = (-1, 0.0)

    def reduce(self, operation: Operation, initial: Any) -> Any:
        """Wait for the value of all results; see `Farm.reduce`."""
        self._reduction = Reduction(operation)
        self._elementwise = self._reduction.elementwise
        self._master.scheduler.reductions.add(self._function.id)
        self.gather()
        return self._reduction.finish(initial)

    def place(self, position: int, completed: Completed) -> int:
        """Combine values with their neighbours."""
        values, offset = completed.values, 0
        while offset < len(values):
            value = values[offset]
            if type(value) is Partial:
                self._reduction.add(position + offset, value.size, value.value, owned=True)
                offset += value.size
            else:
                # What `on_error` has put in the place of an exception, for example.
                self._reduction.add(position + offset, 1, value)
                offset += 1
        self._reduction.combine_large()
        return len(values)

    def offer(self, worker: int, held: Held) -> None:
        """Learn of large results that a worker holds back."""
        if self._closed:
            self._master.ask_for(worker, held.first)
        else:
            self._offers[self.position_of(held.first)] = (worker, held)

    def is_ready(self) -> bool:
        """Whether there are results to combine; if not, ask for those that a worker holds back."""
        with self._master.lock:
            if super().is_ready():
                return True
            if self._offers and not self._is_receiving():
                self._ask()
            return False

    def _is_receiving(self) -> bool:
        """Whether what was asked for last is still on its way."""
        if self._asked is None:
            return False
        return self._master.scheduler.holds_back(*self._asked) or self._master.deliveries.waiting

    def _ask(self) -> None:
        """Ask for the next large results by position, one after the other.

        So rank 0 has what is combined so far, and one more. If a task lasts much longer than others, or a
        lost one waits for a worker, those that follow come earlier and are kept.
        """
        self._asked = None
        scheduler = self._master.scheduler
        offers = {
            place: offer for place, offer in self._offers.items() if scheduler.holds_back(*_held(offer))
        }
        self._offers = offers
        if offers and (self.before in offers or self._takes_early(offers)):
            self._asked = _held(offers.pop(min(offers)))
            self._master.ask_for(*self._asked)

    def _takes_early(self, offers: dict[int, tuple[int, Held]]) -> bool:
        """Whether to ask for results although others before them are missing."""
        now, scheduler = self._master.clock.now(), self._master.scheduler
        if self._since[0] != self.before:
            self._since = (self.before, now)
        patience = 2 * scheduler.estimate(self._function.id).seconds
        patience = min(max(patience, PATIENCE_SECONDS), MAX_PATIENCE_SECONDS)
        if now - self._since[1] < patience or not self._farm.tasks.queued:
            return False
        # While the next task runs, nothing is lost but time.
        needed = max(held.nbytes for _, held in offers.values()) * ROOM
        return free_memory() > needed or not scheduler.is_assigned(self.task_at(self.before))

    def close(self) -> None:
        """Cancel the tasks in the queue, and drop the results of the others."""
        super().close()
        with self._master.lock:
            offers, self._offers = self._offers, {}
            for offer in offers.values():
                self._master.ask_for(*_held(offer))

    def _chunk(self) -> int:
        """Tasks with large results travel in groups, so that the worker can combine them."""
        if self._options.chunksize or self._first_nbytes > LARGE_ARGUMENTS:
            return self._options.chunksize or 0
        estimate = self._master.scheduler.estimate(self._function.id)
        if estimate.result_bytes >= LARGE and self._elementwise:
            # They are not combined on workers.
            return 0
        if estimate.result_bytes >= IN_BAND:
            self._groups = True
        if not self._groups or estimate.seconds > GROUP_SECONDS:
            return 0
        most = min(GROUP, GROUP_SECONDS / max(estimate.seconds, 1e-9))
        if self._arguments.size is not None:
            most = min(most, self._arguments.size / (4 * max(1, self._master.num_workers)))
        return _power_of_two(int(most))

    def _room(self) -> int:
        """So many that groups, or else batches, begin where the tree of combinations does.

        With a journal, blocks that are the same in each run: a later one finds whole partial values.
        """
        room, drawn = super()._room(), self._progress.drawn
        if not room or not drawn:
            return room
        if self._master.outstanding.journal is not None:
            return min(drawn & -drawn, self._largest)
        if (chunk := self._chunk()) > 1:
            return max(room - (drawn + room) % chunk, chunk - drawn % chunk)
        return min(drawn & -drawn, _power_of_two(min(room, MOST_DRAWN)))

    @property
    def _largest(self) -> int:
        """Arguments in a block: a power of two."""
        return _power_of_two(min(MOST_ALIGNED, ALIGNED_BYTES // max(1, self._first_nbytes)))


def _held(offer: tuple[int, Held]) -> tuple[int, int]:
    """The worker of an offer, and the first task of its results."""
    worker, held = offer
    return worker, held.first


def _power_of_two(most: int) -> int:
    """The largest power of two up to `most`; at least 1."""
    return 1 << max(0, most.bit_length() - 1)
