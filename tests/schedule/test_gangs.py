"""Tasks on several ranks in virtual time: they start, hold few workers, and starve nobody."""

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.schedule.explain import explain
from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.offers import parse_offer
from taskfarm.schedule.resources import Resources
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span

CHECK = 0.05
"""Seconds between two looks of the master without any event."""


class VirtualFarm:
    """Runs tasks in virtual time: each function has a demand, each task a duration.

    Attributes
    ----------
    started, ended : dict of int to float
        When each task began to run, and when it ended.
    members : dict of int to tuple of int
        The members of each task on several ranks.
    """

    def __init__(self, hosts: Sequence[int], demands: Sequence[Demand], offers: Sequence[str] = ()) -> None:
        self.scheduler = Scheduler()
        self.now = 0.0
        self.durations: dict[int, float] = {}
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.members: dict[int, tuple[int, ...]] = {}
        self.hosts = {
            worker: f"host{host}"
            for worker, host in enumerate((h for h, n in enumerate(hosts) for _ in range(n)), 1)
        }
        self.scheduler.resources = Resources(list(map(parse_offer, offers)), self.hosts)
        self.lost: set[int] = set()
        self.said: list[str] = []
        self._events: list[tuple[float, int, str, tuple]] = []
        self._number = count()
        self._queues: dict[int, deque[Span]] = {worker: deque() for worker in self.hosts}
        self._busy: dict[int, object] = {}
        self._recalled: set[int] = set()
        for worker, host in self.hosts.items():
            self.scheduler.add_worker(worker, host)
        self.demands = demands
        for function, demand in enumerate(demands):
            self.scheduler.set_demand(function, demand)

    def at(self, time: float, what: str, *arguments: object) -> None:
        heapq.heappush(self._events, (time, next(self._number), what, arguments))

    def _submit(self, function: int, durations: Sequence[float]) -> None:
        first = len(self.durations)
        for task, seconds in enumerate(durations, first):
            self.durations[task] = seconds
        if len(durations) == 1:
            self.scheduler.submit_single(first, function)
        else:
            self.scheduler.submit(Span(first, first, len(durations), function))

    def run(self) -> None:
        """Run until nothing happens any more."""
        self._decide()
        idle = 0
        while self._events or (self.scheduler.unfinished and idle < 2000):
            if self._events and (self._events[0][0] <= self.now + CHECK):
                self.now, _, what, arguments = heapq.heappop(self._events)
                getattr(self, what)(*arguments)
                idle = 0
            else:
                self.now += CHECK
                idle += not self._events
            self._decide()
            self.scheduler.check()
        assert not self.scheduler.unfinished, f"{self.scheduler.unfinished} tasks never started"

    def _decide(self) -> None:
        self.scheduler.now = self.now
        for worker, spans in self.scheduler.assign(self.now):
            self._queues[worker].extend(spans)
            if worker not in self._busy:
                self._next(worker)
        for gang in self.scheduler.gangs.take_started():
            task = gang.span.first
            assert not any(member in self._busy for member in gang.members)
            self.started[task], self.members[task] = self.now, gang.members
            self._busy.update(dict.fromkeys(gang.members, gang.id))
            self.at(self.now + self.durations[task], "_end_gang", gang)
        for worker in [*self.scheduler.recall_for_gang(self.now), *self.scheduler.recall(self.now)]:
            self._answer_recall(worker)

    def _answer_recall(self, worker: int) -> None:
        tasks = [(span.first, span.count) for span in self._queues[worker]]
        self._queues[worker].clear()
        running = self._busy.get(worker)
        if isinstance(running, Span):
            if running.count > 1:
                tasks.append((running.first + 1, running.count - 1))
                self._busy[worker] = running.split(1)[0]
            self.scheduler.finish_recall(worker, tasks, (running.function, 1, 0.0))
        else:
            self.scheduler.finish_recall(worker, tasks, None)

    def explain(self, task: int) -> None:
        self.said.append(explain(self.scheduler, task, self.now))

    def _next(self, worker: int) -> None:
        if self._queues[worker]:
            span = self._queues[worker].popleft()
            self._busy[worker] = span
            self.started[span.first] = self.now
            self.at(self.now + self.durations[span.first], "_end_task", worker, span.first)
        else:
            self._busy.pop(worker, None)

    def _end_task(self, worker: int, task: int) -> None:
        span = self._busy.get(worker)
        if worker in self.lost or not isinstance(span, Span) or span.first != task:
            return
        self.ended[task] = self.now
        done = self.scheduler.finish(worker, task, 1, (), self.durations[task], 0, self.now)
        assert done is not None
        if span.count > 1:
            self._queues[worker].appendleft(span.split(1)[1])
        self._next(worker)

    def _end_gang(self, gang) -> None:
        for member in gang.members:
            self._busy.pop(member, None)
        self.scheduler.now = self.now
        self.scheduler.end_gang(gang.id)
        task = gang.span.first
        if not self.lost.intersection(gang.members):
            self.ended[task] = self.now
            seconds = self.durations[task]
            assert self.scheduler.finish(gang.members[0], task, 1, (), seconds, 0, self.now) is not None

    def _lose(self, worker: int) -> None:
        self.lost.add(worker)
        self._queues.pop(worker)
        self.scheduler.remove_worker(worker)
        self._queues[worker] = deque()
        self.scheduler.fail_unmet()


durations = st.sampled_from([0.001, 0.01, 0.3, 1.0, 4.0])
gang_sizes = st.tuples(st.integers(1, 6), st.sampled_from([None, 1]), st.sampled_from([0, 0, 0, 5]))


@settings(max_examples=25, deadline=None)
@given(
    hosts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    sizes=st.lists(gang_sizes, min_size=1, max_size=4),
    work=st.lists(
        st.tuples(
            st.integers(0, 4), st.lists(durations, min_size=1, max_size=12), st.sampled_from([0.0, 0.5, 2])
        ),
        min_size=1,
        max_size=14,
    ),
    needs=st.booleans(),
    max_workers=st.sampled_from([None, 6]),
)
def test_any_mix_of_tasks_ends(hosts, sizes, work, needs, max_workers) -> None:
    demands = [Demand()]
    for ranks, on, priority in sizes:
        on = on if ranks > 1 else None
        demands.append(Demand(priority, (("gpu", 10_000),) if needs else (), None, False, False, ranks, on))
    farm = VirtualFarm(hosts, demands, ["gpu=6/run"] if needs else [])
    farm.scheduler.open_farm(1, max_workers=max_workers)
    for function in range(0, len(demands), 2):
        farm.scheduler.assign_function(function, 1)
    for function, demand in enumerate(demands):
        farm.scheduler.set_demand(function, demand)
    for function, seconds, when in work:
        function %= len(demands)
        if farm.scheduler.unmet(demands[function]):
            continue
        if max_workers and function % 2 == 0 and demands[function].ranks > max_workers:
            continue
        farm.at(when, "_submit", function, seconds)
    farm.run()
    assert farm.ended.keys() == farm.durations.keys()
    for members in farm.members.values():
        assert len(set(members)) == len(members)


@settings(max_examples=6, deadline=None)
@given(
    workers=st.integers(2, 8),
    ranks=st.integers(2, 8),
    short=st.lists(st.sampled_from([0.005, 0.02, 0.05]), min_size=1, max_size=4),
    gangs=st.integers(1, 5),
)
def test_neither_an_endless_stream_of_tasks_nor_of_gangs_starves_the_other(
    workers, ranks, short, gangs
) -> None:
    ranks = min(ranks, workers)
    farm = VirtualFarm([workers], [Demand(), Demand(0, (), None, False, False, ranks)])
    for step in range(200):
        farm.at(0.02 * step, "_submit", 0, short * workers)
    for _ in range(gangs):
        farm.at(0.5, "_submit", 1, [0.1])
    farm.at(0.6, "_submit", 0, [0.03])
    for step in range(100):
        farm.at(0.7 + 0.02 * step, "_submit", 1, [0.2])
    farm.run()
    # First come, first served: what was submitted later overtakes a gang only if it delays it by little.
    started = [farm.started[task] for task in sorted(farm.members)]
    assert started == sorted(started)
    for place, task in enumerate(sorted(farm.members)):
        singles = sum(farm.durations[one] for one in range(task) if one not in farm.members)
        latest = 0.7 + 2 * singles / workers + place * (0.2 + 2 * max(short)) + 0.2
        assert farm.started[task] <= latest
    # Nor do gangs hold up what was submitted before them.
    for task in farm.started.keys() - farm.members.keys():
        gangs_before = sum(one < task for one in farm.members)
        singles = sum(farm.durations[one] for one in range(task) if one not in farm.members)
        assert farm.started[task] <= 4.5 + 2 * singles / workers + gangs_before * (0.2 + 2 * max(short))


def test_short_tasks_run_on_held_workers_and_delay_no_gang() -> None:
    demands = [
        Demand(0, (), 10.0),
        Demand(0, (), 2.0, False, False, 4),
        Demand(0, (), 1.0),
        Demand(0, (), 20.0),
    ]
    farm = VirtualFarm([4], demands)
    farm.at(0, "_submit", 0, [10.0])  # occupies one worker
    farm.at(0.1, "_submit", 1, [2.0])  # needs all four
    for _ in range(30):
        farm.at(0.2, "_submit", 2, [1.0])
    farm.at(0.2, "_submit", 3, [20.0])
    farm.run()
    (gang,) = farm.members
    assert farm.started[gang] == pytest.approx(10.0, abs=0.1)
    backfilled = [task for task in farm.started if farm.ended[task] <= farm.started[gang]]
    assert len(backfilled) == 1 + 27  # three workers for nine seconds
    assert farm.started[32] >= farm.ended[gang]


def test_held_workers_get_no_batch_and_return_what_they_had_prefetched() -> None:
    farm = VirtualFarm([3], [Demand(), Demand(0, (), None, False, False, 3)])
    farm.at(0, "_submit", 0, [0.002] * 3000)
    farm.at(0.5, "_submit", 1, [0.1])
    farm.at(0.5, "_submit", 0, [0.002] * 3000)
    farm.run()
    (gang,) = farm.members
    before = 3000 * 0.002 / 3
    assert before - 0.1 <= farm.started[gang] <= before + 0.1


def test_a_task_says_which_ranks_it_waits_for() -> None:
    farm = VirtualFarm([3], [Demand(0, (), 10.0), Demand(0, (), None, False, False, 3)])
    farm.at(0, "_submit", 0, [10.0])
    farm.at(1, "_submit", 1, [1.0])
    farm.at(2, "explain", 1)
    farm.run()
    assert "2 of those held for it are free, and rank 3 must first end" in farm.said[0]


def test_one_host_and_blocks() -> None:
    farm = VirtualFarm(
        [3, 4], [Demand(0, (), None, False, False, 2, 1), Demand(0, (), None, False, False, 4, 1)]
    )
    for _ in range(8):
        farm.at(0, "_submit", 0, [1.0])
        farm.at(0, "_submit", 1, [1.0])
    farm.run()
    for members in farm.members.values():
        assert len({farm.hosts[member] for member in members}) == 1
    # The same groups recur.
    assert len(set(farm.members.values())) <= 5
    assert "no host has more than 4" in farm.scheduler.unmet(Demand(ranks=5, hosts=1))
    assert "there are 7 workers" in farm.scheduler.unmet(Demand(ranks=8))


@settings(max_examples=15, deadline=None)
@given(
    deaths=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 6)), max_size=3, unique_by=lambda d: d[1]),
    ranks=st.integers(2, 3),
)
def test_a_lost_member_frees_the_others(deaths, ranks) -> None:
    farm = VirtualFarm([6], [Demand(), Demand(0, (), None, False, False, ranks)])
    farm.scheduler.attempts.max_kills = 100
    for _ in range(6):
        farm.at(0, "_submit", 1, [0.7])
        farm.at(0, "_submit", 0, [0.3, 0.4])
    for when, worker in deaths:
        farm.at(when, "_lose", worker)
    farm.run()
    assert farm.ended.keys() == farm.durations.keys()
    assert not farm.scheduler.gangs.running
