"""Which lane of a farm starts next, and on which worker. Pure.

Lanes are asked in the order of their priority and age. One that cannot start now holds up nobody, but
reserves the units that it waits for: a later lane gets those only if its tasks should end before the first
one can start (EASY backfilling: D. A. Lifka, JSSPP 1995, LNCS 949, 295; A. W. Mu'alem and D. G. Feitelson,
IEEE Trans. Parallel Distrib. Syst. 12, 529 (2001)). In contrast to the original, each lane that waits has a
reservation. So small needs cannot starve a large one, and a large one holds up small ones only while it
gathers its units.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from taskfarm.schedule.amounts import Needs
from taskfarm.schedule.batching import expected_end
from taskfarm.schedule.farm_queue import FarmQueue
from taskfarm.schedule.gangs import GangChoice, Gangs
from taskfarm.schedule.lanes import PLAIN, Demand, Lane, LaneQueue
from taskfarm.schedule.locality import Locality
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.resources import Pool, Resources, Shares
from taskfarm.schedule.spans import Span
from taskfarm.schedule.worker_load import WorkerLoad


class Choice(NamedTuple):
    """The next batch.

    Attributes
    ----------
    farm : FarmQueue
        Its farm.
    worker : int
        The worker that gets it.
    queue : TaskQueue
        Where its tasks are.
    is_retry : bool
        Whether it is a retry.
    seconds : float
        How long it may last.
    """

    farm: FarmQueue
    worker: int
    queue: TaskQueue
    is_retry: bool
    seconds: float = math.inf


class Reservation(NamedTuple):
    """What a lane keeps from those after it.

    Attributes
    ----------
    kept : int
        Units that are free now and must stay so.
    until : float
        When it can probably start.
    """

    kept: int
    until: float


class Round:
    """What the lanes that were asked so far have reserved.

    Attributes
    ----------
    now : float
        The current time.
    gang_waits : bool
        Whether a gang that comes first waits for workers.
    passed : list of (FarmQueue, Lane)
        The lanes of tasks on one rank that cannot start now.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.reserved: dict[Pool, Reservation] = {}
        self.held_back: set[int] = set()
        self.all_held_back = False
        self.gang_waits = False
        self.passed: list[tuple[FarmQueue, Lane]] = []
        self._held: tuple[int, ...] = ()
        self._held_until = 0.0
        self._closed: FarmQueue | None = None

    def hold(self, members: tuple[int, ...], until: float, farm: FarmQueue) -> None:
        """Hold workers for a gang of a farm that should start then."""
        self._held, self._held_until = members, until
        self.held_back.update(members)
        # Another worker would take the place of a member.
        self._closed = farm if farm.max_workers is not None else None

    def seconds_left(self, worker: int, seconds: float | None) -> float | None:
        """How long an idle worker may run a task that should take `seconds`; None: not at all."""
        if worker not in self._held:
            return math.inf
        left = self._held_until - self.now
        return None if seconds is None or seconds > left else left

    @property
    def holds(self) -> bool:
        """Whether workers are held."""
        return bool(self._held)

    def is_held(self, worker: int) -> bool:
        """Whether a worker is held for a gang."""
        return worker in self._held

    def is_closed(self, farm: FarmQueue, worker: int) -> bool:
        """Whether a farm must not use a worker, because it may use only so many."""
        return farm is self._closed and worker not in self._held

    def keep(self, pool: Pool, amount: int, until: float) -> None:
        """Keep units from the lanes that come later."""
        before = self.reserved.get(pool, Reservation(0, until))
        self.reserved[pool] = Reservation(before.kept + amount, min(before.until, until))

    def left_of(self, pool: Pool) -> int:
        """How much of a pool nobody holds or has reserved."""
        return pool.free - self.reserved.get(pool, Reservation(0, 0.0)).kept

    def is_held_back(self, worker: int) -> bool:
        """Whether a worker must become idle, so that it gets no more work before."""
        return self.all_held_back or worker in self.held_back


def _lanes_of(farm: FarmQueue) -> LaneQueue:
    assert farm.queue.lanes is not None
    return farm.queue.lanes


class LaneChooser:
    """Chooses among the lanes of a farm.

    Parameters
    ----------
    loads : mapping of int to WorkerLoad
        All workers.
    idle, short_of_work : mapping of int to None
        The workers that are idle, the last one last, and those that may prefetch.
    demands : mapping of int to Demand
        The demands of functions.
    seconds_of : callable
        Returns the expected seconds of the next task of a queue; None: unknown.
    may_follow : callable
        Whether the next task of a queue may be sent to a worker that has not done what it holds.

    Attributes
    ----------
    resources : Resources
        What there is.
    locality : Locality
        Where tasks should run.
    """

    def __init__(
        self,
        loads: Mapping[int, WorkerLoad],
        idle: dict[int, None],
        short_of_work: Mapping[int, None],
        demands: Mapping[int, Demand],
        seconds_of: Callable[[TaskQueue], float | None],
        may_follow: Callable[[int, Span], bool],
    ) -> None:
        self.resources = Resources()
        self.locality = Locality()
        self._loads = loads
        self._idle = idle
        self._short_of_work = short_of_work
        self._demands = demands
        self._seconds_of = seconds_of
        self._may_follow = may_follow
        self.gangs = Gangs(loads, idle, short_of_work, lambda: self.resources, self._end, seconds_of)

    def choose(
        self, farm: FarmQueue, so_far: Round, spans_only: bool = False, is_alone: bool = False
    ) -> tuple[Choice | GangChoice | None, bool]:
        """Return the next batch of a farm, if there is one, and whether other farms may prefetch.

        With `spans_only`, retries do not count. If the farm `is_alone` on a worker, that runs its retries.
        """
        lanes = _lanes_of(farm)
        for lane in lanes.ranked():
            queue = lane.queue
            if lane.ranks > 1:
                gang = self.gangs.choose(farm, lane, so_far, lambda: self._older_wait(so_far))
                if gang is not None:
                    return gang, True
                continue
            if queue.retries and not spans_only:
                anywhere = is_alone or len(queue.retries) > 1 or self._is_only_one(lane.needs)
                for worker, seconds in self._able(farm, lane, so_far):
                    if anywhere or worker not in queue.retries:
                        return Choice(farm, worker, queue, True, seconds), True
            if queue.has_spans:
                for worker, seconds in self._near_first(queue, self._able(farm, lane, so_far)):
                    return Choice(farm, worker, queue, False, seconds), True
            self._let_wait(farm, lane, so_far)
        return None, not so_far.all_held_back

    def _let_wait(self, farm: FarmQueue, lane: Lane, so_far: Round) -> None:
        """Note that a lane cannot start now."""
        so_far.passed.append((farm, lane))
        if lane.needs:
            self._reserve(lane, so_far)
        elif farm.first_accepted(self._short_of_work) is not None:
            so_far.all_held_back = True

    def _older_wait(self, so_far: Round) -> bool:
        """Whether a task that cannot start now waits for a worker, whichever it is."""
        return any(self._waits_for_worker(farm, lane) for farm, lane in so_far.passed)

    def _waits_for_worker(self, farm: FarmQueue, lane: Lane) -> bool:
        if farm.max_workers is not None and len(farm.held) >= farm.max_workers:
            return False
        able = self._loads if farm.ready is None else farm.ready & self._loads.keys()
        if not lane.needs:
            return bool(able)
        return any(self._limit(worker, lane.needs, None, Round(0.0)) is not None for worker in able)

    def _is_only_one(self, needs: Needs) -> bool:
        """Whether only one worker can meet some needs."""
        return bool(needs) and sum(map(len, self.resources.able(needs).values())) == 1

    def overtaken(self, farm: FarmQueue) -> list[int]:
        """Return the workers to recall unstarted tasks from: what is queued has a higher priority."""
        so_far = Round(0.0)
        found: list[int] = []
        lanes = _lanes_of(farm)
        ranked = lanes.ranked()
        if not ranked or lanes.lowest >= ranked[0].priority:
            return found
        for lane in ranked:
            wanted = 2 * lane.queue.count + 2
            for worker, load in self._loads.items():
                if len(found) >= wanted:
                    break
                if load.recalled or worker in found or not self._has_lower(load, lane.priority):
                    continue
                if farm.accepts(worker) and self._limit(worker, lane.needs, None, so_far) is not None:
                    found.append(worker)
        return found

    def _has_lower(self, load: WorkerLoad, priority: float) -> bool:
        """Whether a worker holds unstarted tasks of a lower priority."""
        unstarted = sum(span.count for span in load.unfinished()) - 1
        for span in reversed(load.unfinished()):
            if unstarted > 0 and self._demands.get(span.function, PLAIN).priority < priority:
                return True
            unstarted -= span.count
        return False

    def may_take(self, worker: int, function: int) -> bool:
        """Whether an idle worker could run a task of a function now."""
        needs = self._demands.get(function, PLAIN).needs
        return not needs or self._limit(worker, needs, None, Round(0.0)) is not None

    def _able(self, farm: FarmQueue, lane: Lane, so_far: Round) -> Iterator[tuple[int, float]]:
        """Yield the workers that may start a lane's next task now, and how long a batch may last there."""
        seconds = self._seconds_of(lane.queue)
        limits: dict[Shares | None, float | None] = {None: None}
        for worker in self._by_preference(so_far):
            if not farm.accepts(worker) or so_far.is_closed(farm, worker):
                continue
            left = so_far.seconds_left(worker, seconds)
            if left is None:
                continue
            # An idle worker holds nothing, so those with the same pools can have the same.
            shares = self.resources.pools(worker, lane.needs) if lane.needs else ()
            if shares not in limits:
                limits[shares] = self._limit(worker, lane.needs, seconds, so_far)
            if (limit := limits[shares]) is not None:
                yield worker, min(limit, left)
        for worker in self._short_of_work:
            limit = self._limit(worker, lane.needs, seconds, so_far)
            if limit is not None and self._may_prefetch(farm, worker, lane, so_far):
                yield worker, limit

    def _near_first(
        self, queue: TaskQueue, able: Iterator[tuple[int, float]]
    ) -> Iterable[tuple[int, float]]:
        """Put the workers first that are near the data of the next task of a queue."""
        head = queue.head if self.locality else None
        host = None if head is None else self.locality.host(head.first)
        if host is None:
            return able
        return sorted(able, key=lambda one: self.locality.hosts[one[0]] != host)

    def _may_prefetch(self, farm: FarmQueue, worker: int, lane: Lane, so_far: Round) -> bool:
        """Whether a worker may be sent tasks of a lane before it has answered those that it holds."""
        if so_far.is_closed(farm, worker) or not farm.accepts(worker):
            return False
        spans = self._loads[worker].unfinished()
        if not spans:
            # It has done them, and only keeps their results.
            return True
        head = lane.queue.head
        if so_far.is_held_back(worker) or head is None or not self._may_follow(worker, head):
            return False
        if min(self._demands.get(span.function, PLAIN).priority for span in spans) < lane.priority:
            # Its running task may take long, and another worker may be idle before.
            return False
        return self.resources.is_covered(worker, lane.needs)

    def _by_preference(self, so_far: Round) -> Iterable[int]:
        """The idle workers: who has the fewest special things comes first, then who fell idle last."""
        idle = reversed(self._idle)
        if so_far.holds:
            return sorted(idle, key=lambda one: (so_far.is_held(one), self.resources.special(one)))
        if len(self._idle) < 2 or self.resources.is_uniform:
            return idle
        return sorted(idle, key=self.resources.special)

    def _limit(self, worker: int, needs: Needs, seconds: float | None, so_far: Round) -> float | None:
        """How long a worker may hold what a task needs from now on; None if it cannot have it."""
        if not needs:
            return math.inf
        pools = self.resources.pools(worker, needs)
        if pools is None:
            return None
        claim = dict(self.resources.claims.get(worker, ()))
        limit = math.inf
        for pool, amount in pools:
            free = pool.free + claim.get(pool.name, 0)
            if free < amount:
                return None
            kept, until = so_far.reserved.get(pool, Reservation(0, 0.0))
            if free - kept < amount:
                if seconds is None or so_far.now + seconds > until:
                    return None
                limit = min(limit, until - so_far.now)
        return limit

    def obstacles(self, farm: FarmQueue, function: int, now: float) -> tuple[int, list[tuple[Pool, int]]]:
        """What the next task of a function waits for.

        Returns
        -------
        workers : int
            How many workers could run it.
        lacking : list of (Pool, int)
            What one of these cannot have now, and how much of it is kept for tasks that come first.
        """
        lanes, so_far = _lanes_of(farm), Round(now)
        mine = lanes.lane(function)
        for lane in lanes.ranked():
            if lane is mine:
                break
            if lane.needs:
                self._reserve(lane, so_far)
        able, fewest = 0, None
        for worker in self._loads:
            pools = self.resources.pools(worker, mine.needs)
            if pools is None or not farm.accepts(worker):
                continue
            able += 1
            lacking = []
            for pool, amount in pools:
                kept = so_far.reserved.get(pool, Reservation(0, 0.0)).kept
                if pool.free - kept < amount:
                    lacking.append((pool, min(kept, pool.free)))
            if fewest is None or len(lacking) < len(fewest):
                fewest = lacking
        return able, fewest or []

    # A lane that cannot start now

    def _reserve(self, lane: Lane, so_far: Round) -> None:
        """Keep what a lane waits for from the lanes after it."""
        best: tuple[float, list[tuple[Pool, Reservation]]] | None = None
        for shares, workers in self.resources.able(lane.needs).items():
            started = [worker for worker in workers if worker in self._loads]
            if not started:
                continue
            for worker in started:
                if self._limit(worker, lane.needs, None, so_far) is not None:
                    # It has to become idle, nothing else.
                    so_far.held_back.add(worker)
            free_at = min(self._end(self._loads[worker], so_far.now) for worker in started)
            planned = [(pool, self._gathered(pool, amount, so_far)) for pool, amount in shares]
            start = max([free_at, *(one.until for _, one in planned)])
            if best is None or start < best[0]:
                best = start, planned
        if best is None:
            return
        start, planned = best
        for pool, (kept, _) in planned:
            so_far.keep(pool, kept, start)

    def _gathered(self, pool: Pool, amount: int, so_far: Round) -> Reservation:
        """What must stay free of a pool, and until when, so that `amount` will be."""
        ends = sorted(
            (self._end(self._loads[worker], so_far.now), held)
            for worker in pool.workers & self.resources.claims.keys()
            for name, held in self.resources.claims[worker]
            if name == pool.name
        )
        free, until, coming = pool.free, so_far.now, 0
        for end, held in ends:
            if free >= amount:
                break
            until, free, coming = end, free + held, coming + held
        return Reservation(max(0, amount - coming), until)

    def _end(self, load: WorkerLoad, now: float) -> float:
        """When a worker has probably done what it holds."""
        if load.gang is not None:
            return load.gang.end(now)
        if not load.unfinished():
            return now
        return expected_end(load.last_answer, load.seconds, now)
