"""Tasks on several ranks: which workers are their members, and what is held for the one that waits. Pure.

A gang starts when enough workers are idle at once. The first one that waits, in the order of the lanes, has
a reservation: the workers that should be free soonest. They finish what they have begun and get nothing
more, except tasks that should end before the last of them is free (EASY backfilling, as for resources: see
`choice`).

Members come from aligned blocks of workers if that costs next to nothing. So the same groups recur, and
their communicators with them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from taskfarm.schedule.amounts import Needs
from taskfarm.schedule.batching import RECALL_INTERVAL, expected_end, recall_after
from taskfarm.schedule.farm_queue import FarmQueue
from taskfarm.schedule.lanes import Demand, Lane
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.resources import Pool, Resources
from taskfarm.schedule.spans import Span
from taskfarm.schedule.worker_load import WorkerLoad

if TYPE_CHECKING:
    from taskfarm.schedule.choice import Round

MOST_MOVES = 8
"""Times that the start of a gang may be put off before nothing more is started on workers held for it."""

SLACK, SLACK_SECONDS = 0.1, 1e-3
"""A gang waits longer by this share, or by these seconds, for an aligned block of workers."""


class GangChoice(NamedTuple):
    """A task on several ranks that starts now.

    Attributes
    ----------
    farm : FarmQueue
        Its farm.
    members : tuple of int
        The workers that run it; the first one is rank 0 of its communicator.
    queue : TaskQueue
        Where it is.
    is_retry : bool
        Whether it is a retry.
    """

    farm: FarmQueue
    members: tuple[int, ...]
    queue: TaskQueue
    is_retry: bool


class Gang:
    """The members of a task that runs on several ranks.

    Attributes
    ----------
    id : int
        Identifies this attempt among all.
    members : tuple of int
        The workers, in the order of their ranks in the communicator.
    span : Span
        The task.
    farm : FarmQueue
        Its farm.
    started : float
        When it started.
    seconds : float
        How long it should take; infinite if nobody knows.
    needs : Needs
        What each member holds for it.
    held_since : dict of int to float
        Since when members were idle and held for it.
    """

    __slots__ = ("farm", "held_since", "id", "members", "needs", "seconds", "span", "started")

    def __init__(
        self, id: int, members: tuple[int, ...], span: Span, farm: FarmQueue, started: float, seconds: float
    ) -> None:
        self.id = id
        self.members = members
        self.span = span
        self.farm = farm
        self.started = started
        self.seconds = seconds
        self.needs: Needs = ()
        self.held_since: dict[int, float] = {}

    def end(self, now: float) -> float:
        """When it has probably ended."""
        return expected_end(self.started, self.seconds, now)


class Reservation(NamedTuple):
    """Workers that are held for the first gang that waits.

    Attributes
    ----------
    lane : Lane
        Where the gang is.
    task : int
        Its task.
    members : tuple of int
        The workers.
    until : float
        When all of them should be free.
    """

    lane: Lane
    task: int
    members: tuple[int, ...]
    until: float


class Gangs:
    """Finds workers for gangs, and keeps the reservation of the first one that waits.

    Parameters
    ----------
    loads : mapping of int to WorkerLoad
        All workers.
    idle, short_of_work : mapping of int to None
        Those that are idle, and those that may prefetch.
    resources : callable
        Returns what there is.
    end_of : callable
        When a worker has probably done what it holds.
    seconds_of : callable
        Returns the expected seconds of the next task of a queue; None: unknown.

    Attributes
    ----------
    hosts : dict of int to str
        The host of each worker.
    running : dict of int to Gang
        The gangs that run, or have not been ended on all members.
    started : list of Gang
        Those that were started last, until somebody takes them.
    reservation : Reservation or None
        What is held; it has an effect only while its gang waits.
    held_since : dict of int to float
        Idle workers that are held, and since when.
    used : bool
        Whether there has been any gang.
    broken : str
        Why no gang can start any more; empty if they can.
    paused : str
        Why no gang starts for now; empty if they do.
    released : list of (int, float)
        Workers that are not held any more, and since when they were, until somebody takes them.
    """

    def __init__(
        self,
        loads: Mapping[int, WorkerLoad],
        idle: Mapping[int, None],
        short_of_work: Mapping[int, None],
        resources: Callable[[], Resources],
        end_of: Callable[[WorkerLoad, float], float],
        seconds_of: Callable[[TaskQueue], float | None],
    ) -> None:
        self.hosts: dict[int, str] = {}
        self.running: dict[int, Gang] = {}
        self.started: list[Gang] = []
        self.reservation: Reservation | None = None
        self.held_since: dict[int, float] = {}
        self.released: list[tuple[int, float]] = []
        self.used = False
        self.broken = self.paused = ""
        self._loads = loads
        self._idle = idle
        self._short_of_work = short_of_work
        self._resources = resources
        self._end_of = end_of
        self._seconds_of = seconds_of
        self._seen: set[int] = set()
        self._to_recall: list[int] = []
        self._moves = 0
        self._next_plan = -math.inf
        self._ids = 0
        self._blocks_of: dict[tuple[int, bool], list[tuple[int, ...]]] = {}

    def add_worker(self, worker: int, host: str) -> None:
        """Note the host of a worker that has started."""
        self.hosts[worker] = host
        self._blocks_of.clear()

    def remove_worker(self, worker: int) -> None:
        """Forget a worker that was lost."""
        self.hosts.pop(worker, None)
        self.held_since.pop(worker, None)
        self._blocks_of.clear()
        if self.reservation is not None and worker in self.reservation.members:
            self.reservation = None
            self._next_plan = -math.inf

    def unmet(self, demand: Demand, workers: int | None = None) -> str:
        """Why a gang can never start, as a part of a sentence; empty if it can.

        Parameters
        ----------
        demand : Demand
            Of its function.
        workers : int, optional
            Number of workers, if some have not started, so that their hosts are not known.
        """
        ranks = demand.ranks
        if self.broken:
            return f"needs {ranks} ranks, and {self.broken}"
        number = len(self._loads) if workers is None else workers
        if ranks > number:
            return f"needs {ranks} ranks, and there are {number} workers"
        if workers is not None and workers > len(self._loads):
            return ""
        if demand.hosts is not None:
            largest = max(Counter(map(self.hosts.__getitem__, self._loads)).values(), default=0)
            if ranks > largest:
                return f"needs {ranks} ranks of one host, and no host has more than {largest} workers"
        if demand.needs and self._first_able(self._loads, demand.needs, ranks, demand.hosts) is None:
            return f"needs {ranks} ranks, and fewer can have what each of them needs at a time"
        return ""

    def _first_able(
        self, workers: Iterable[int], needs: Needs, ranks: int, hosts: int | None
    ) -> tuple[int, ...] | None:
        """Workers that can have what they need at the same time when nobody else holds anything."""
        for group in self._groups(sorted(workers), hosts):
            able = self._accumulate(group, needs, ranks, lambda pool: pool.capacity)
            if len(able) == ranks:
                return able
        return None

    def _groups(self, workers: list[int], hosts: int | None) -> list[list[int]]:
        """Workers among which all members must be, in the given order."""
        if hosts is None:
            return [workers]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for worker in workers:
            groups[self.hosts[worker]].append(worker)
        return list(groups.values())

    def _accumulate(
        self, workers: Iterable[int], needs: Needs, ranks: int, left_of: Callable[[Pool], int]
    ) -> tuple[int, ...]:
        """The first workers that can all have what they need of what is left; at most `ranks`."""
        chosen: list[int] = []
        taken: Counter[Pool] = Counter()
        for worker in workers:
            if len(chosen) == ranks:
                break
            shares = self._resources().pools(worker, needs) if needs else ()
            if shares is None or any(taken[pool] + each > left_of(pool) for pool, each in shares):
                continue
            taken.update(dict(shares))
            chosen.append(worker)
        return tuple(chosen)

    # What starts now

    def choose(
        self, farm: FarmQueue, lane: Lane, so_far: "Round", older_wait: Callable[[], bool]
    ) -> GangChoice | None:
        """Return the next gang of a lane if it can start now; the first one that cannot reserves workers.

        `older_wait` tells whether tasks that come first wait for any worker.
        """
        if self.paused:
            return None
        members = self._find(farm, lane, so_far)
        if members is not None:
            return GangChoice(farm, members, lane.queue, not lane.queue.has_spans)
        if not so_far.gang_waits:
            so_far.gang_waits = True
            if not older_wait():
                self._reserve(farm, lane, so_far)
        return None

    def _find(self, farm: FarmQueue, lane: Lane, so_far: "Round") -> tuple[int, ...] | None:
        """Idle workers that may run the next gang of a lane now."""
        if len(self._idle) + len(self._short_of_work) < lane.ranks:
            return None
        if farm.max_workers is not None and farm.max_workers - len(farm.held) < lane.ranks:
            return None
        seconds = self._seconds_of(lane.queue)
        free = [
            worker
            for worker in self._without_tasks()
            if farm.accepts(worker) and so_far.seconds_left(worker, seconds) is not None
        ]
        if len(free) < lane.ranks:
            return None
        if not lane.needs:
            return self._pick(set(free), lane.ranks, lane.hosts)
        for group in self._groups(sorted(free, key=self._place), lane.hosts):
            chosen = self._accumulate(group, lane.needs, lane.ranks, so_far.left_of)
            if len(chosen) == lane.ranks:
                return chosen
        return None

    def _without_tasks(self) -> list[int]:
        """The workers that run nothing: those that are idle, and those that only keep results."""
        loads = self._loads
        return [*self._idle, *(worker for worker in self._short_of_work if not loads[worker].unfinished())]

    def _place(self, worker: int) -> tuple[str, int]:
        return self.hosts[worker], worker

    def _pick(self, workers: set[int], ranks: int, hosts: int | None) -> tuple[int, ...] | None:
        """As many of some workers: those of an aligned block, if possible."""
        for block in self._blocks(ranks, hosts):
            if workers.issuperset(block):
                return block
        for group in self._groups(sorted(workers, key=self._place), hosts):
            if len(group) >= ranks:
                return tuple(group[:ranks])
        return None

    def _blocks(self, ranks: int, hosts: int | None) -> list[tuple[int, ...]]:
        """Groups of workers that do not overlap those of other sizes more than they must."""
        key = ranks, hosts is None
        found = self._blocks_of.get(key)
        if found is None:
            size = 1 << (ranks - 1).bit_length()
            workers = sorted(self.hosts, key=self._place)
            groups = self._groups(workers, 1) + ([workers] if hosts is None else [])
            blocks = [group[at : at + ranks] for group in groups for at in range(0, len(group), size)]
            found = [tuple(block) for block in blocks if len(block) == ranks]
            self._blocks_of[key] = found = list(dict.fromkeys(found))
        return found

    # The first gang that waits

    def _reserve(self, farm: FarmQueue, lane: Lane, so_far: "Round") -> None:
        """Hold workers for the next gang of a lane."""
        task, now = lane.rank[1], so_far.now
        before = self.reservation
        is_same = before is not None and (before.lane is lane and before.task == task)
        if not is_same:
            self._seen, self._moves = set(), 0
        if not is_same or now >= self._next_plan:
            self._next_plan = now + max(RECALL_INTERVAL, 1e-5 * len(self._loads))
            members = self._plan(farm, lane, now)
            if members is None:
                self.reservation = None
                return
            until = max(now, *(self._free_at(worker, now) for worker in members))
            if before is not None and is_same and until > before.until + SLACK_SECONDS:
                self._moves += 1
            self.reservation = Reservation(lane, task, members, until)
            self._note_members(members, now)
        assert self.reservation is not None
        until = self.reservation.until if self._moves < MOST_MOVES else now
        so_far.hold(self.reservation.members, until, farm)
        if lane.needs:
            self._keep_units(self.reservation, so_far)

    def _free_at(self, worker: int, now: float) -> float:
        return self._end_of(self._loads[worker], now)

    def _plan(self, farm: FarmQueue, lane: Lane, now: float) -> tuple[int, ...] | None:
        """The workers that should be free soonest."""
        able = [worker for worker in self._loads if farm.ready is None or worker in farm.ready]
        if farm.max_workers is not None and len(farm.held) + lane.ranks > farm.max_workers:
            # It may use no others before these are free.
            room = farm.max_workers - len(farm.held)
            others = [worker for worker in able if worker not in farm.held][:room]
            able = [worker for worker in able if worker in farm.held] + others
        ends = {worker: self._free_at(worker, now) for worker in able}
        able.sort(key=lambda worker: (worker not in self._idle, ends[worker], self._place(worker)))
        best: tuple[float, tuple[int, ...]] | None = None
        for group in self._groups(able, lane.hosts):
            members = self._accumulate(group, lane.needs, lane.ranks, lambda pool: pool.capacity)
            if len(members) == lane.ranks:
                start = max(ends[worker] for worker in members)
                if best is None or start < best[0]:
                    best = start, members
        if best is None:
            return None
        soonest, members = best
        if not lane.needs:
            limit = now + (soonest - now) * (1 + SLACK) + SLACK_SECONDS
            for block in self._blocks(lane.ranks, lane.hosts):
                if all(ends.get(worker, math.inf) <= limit for worker in block):
                    return block
        return tuple(sorted(members, key=self._place))

    def _note_members(self, members: Collection[int], now: float) -> None:
        for worker in members:
            if worker not in self._idle and worker not in self._seen:
                self._to_recall.append(worker)
            self._seen.add(worker)
            if worker in self._idle:
                self.held_since.setdefault(worker, now)
        for worker in self.held_since.keys() - set(members):
            self.let_go(worker)

    def _keep_units(self, reservation: Reservation, so_far: "Round") -> None:
        """Keep what the members need of shared resources from the tasks that come later."""
        wanted: Counter[Pool] = Counter()
        for worker in reservation.members:
            wanted.update(dict(self._resources().pools(worker, reservation.lane.needs) or ()))
        for pool, amount in wanted.items():
            so_far.keep(pool, amount, reservation.until)

    def note_idle(self, worker: int, now: float) -> None:
        """Note that a worker has become idle: from now on it is held, if it is."""
        if self.reservation is not None and worker in self.reservation.members:
            self.held_since.setdefault(worker, now)

    def let_go(self, worker: int) -> None:
        """Note that a worker is not held, or not idle, any more."""
        since = self.held_since.pop(worker, None)
        if since is not None:
            self.released.append((worker, since))

    def drop_reservation(self) -> None:
        """Hold nothing any more: the gang has started, or does not wait any more."""
        if self.reservation is None and not self.held_since:
            return
        self.reservation = None
        for worker in list(self.held_since):
            self.let_go(worker)

    def take_released(self) -> list[tuple[int, float]]:
        """Workers that are not held any more, and since when they were."""
        released, self.released = self.released, []
        return released

    def take_to_recall(self) -> Iterator[int]:
        """Members of the reservation that have more to do than a recall takes."""
        to_recall, self._to_recall = self._to_recall, []
        for worker in to_recall:
            load = self._loads.get(worker)
            if load is not None and load.seconds > recall_after(len(self._loads)):
                yield worker

    # Gangs that run

    def add(
        self, members: tuple[int, ...], span: Span, farm: FarmQueue, now: float, seconds: float
    ) -> Gang:
        """Let workers be the members of a gang from now on."""
        self._ids += 1
        gang = self.running[self._ids] = Gang(self._ids, members, span, farm, now, seconds)
        for worker in members:
            self._loads[worker].gang = gang
            self.let_go(worker)
        reservation = self.reservation
        if reservation is not None and span.first <= reservation.task < span.end:
            self.drop_reservation()
        self.started.append(gang)
        return gang

    def take_started(self) -> list[Gang]:
        """The gangs that have started since the last call."""
        started, self.started = self.started, []
        return started
