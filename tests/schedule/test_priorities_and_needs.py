"""Priorities and needs in virtual time: who starts when, nothing is exceeded, and nobody starves."""

import heapq
from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from taskfarm.schedule.amounts import SCALE
from taskfarm.schedule.lanes import PLAIN, Demand
from taskfarm.schedule.offers import parse_offer
from taskfarm.schedule.resources import Resources
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span
from tests.schedule.test_scheduler import Events


class Kind(NamedTuple):
    """A function: how its tasks are chosen, and how long they take."""

    seconds: float
    priority: float = 0
    needs: Mapping[str, float] = MappingProxyType({})

    @property
    def demand(self) -> Demand:
        needs = tuple(sorted((name, round(amount * SCALE)) for name, amount in self.needs.items()))
        return Demand(self.priority, needs)


class VirtualRun:
    """Workers in virtual time, which run their batches in order; each task must start and end once.

    Attributes
    ----------
    started, ended : dict of int to float
        When each task started and ended.
    order : list of int
        Tasks in the order in which they were assigned.
    """

    def __init__(self, kinds: Sequence[Kind], hosts: Sequence[str], offers: Sequence[str] = ()) -> None:
        self.kinds = kinds
        self.scheduler = Scheduler()
        names = dict(enumerate(hosts, 1))
        self.offers = [parse_offer(text) for text in offers]
        self.scheduler.resources = Resources(self.offers, names)
        self.hosts = names
        for worker in names:
            self.scheduler.add_worker(worker)
        for function, kind in enumerate(kinds):
            if kind.demand != PLAIN:
                self.scheduler.set_demand(function, kind.demand)
        self.ids, self.numbers = count(), count()
        self.events: list[tuple[float, int, str, object]] = []
        self.inbox: dict[int, list[Span]] = {worker: [] for worker in names}
        self.runs: dict[int, tuple[int, int]] = {}
        self.function_of: dict[int, int] = {}
        self.submitted: dict[int, float] = {}
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.queued: set[int] = set()
        self.order: list[int] = []
        self.now = 0.0

    def submit(self, at: float, function: int, size: int = 1, chunk: int = 0) -> range:
        assert not self.events or at >= max(self.events)[0], "ids are in the order of submission"
        first = next(self.ids)
        for _ in range(size - 1):
            next(self.ids)
        tasks = range(first, first + size)
        self.function_of.update(dict.fromkeys(tasks, function))
        self._later(at, "submit", Span(first, first, size, function, chunk))
        return tasks

    def lose(self, at: float, worker: int) -> None:
        self._later(at, "lose", worker)

    def _later(self, at: float, what: str, argument: object) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), what, argument))

    def run(self) -> None:
        while self.events:
            self.now, _, what, argument = heapq.heappop(self.events)
            getattr(self, f"_{what}")(argument)
            if not self.events or self.events[0][0] > self.now:
                self._decide()
            self._check_capacity()
        self.scheduler.check()

    def _submit(self, span: Span) -> None:
        self.scheduler.submit(span)
        tasks = range(span.first, span.end)
        self.submitted.update(dict.fromkeys(tasks, self.now))
        self.queued.update(tasks)

    def _lose(self, worker: int) -> None:
        running = self.runs.pop(worker, None)
        held = [task for span in self.inbox.pop(worker) for task in range(span.first, span.end)]
        self.queued.update(held)
        if running is not None:
            self.started.pop(running[0])
            self.queued.add(running[0])
        self.scheduler.remove_worker(worker)
        assert worker not in self.scheduler.resources.claims

    def _decide(self) -> None:
        self.scheduler.now = self.now
        if self.scheduler.can_assign:
            some = self._assign()
            if self.scheduler.demands:
                assert some, "nothing was assigned, though something could be"
                assert not self.scheduler.can_assign
        elif self.scheduler.may_recall:
            for worker in self.scheduler.recall(self.now):
                # It answers at once: the running task goes on.
                left = [(span.first, span.count) for span in self.inbox[worker]]
                self.inbox[worker].clear()
                task, function = self.runs[worker]
                assert self.scheduler.finish_recall(
                    worker, left, (function, 1, self.now - self.started[task])
                )
                self.queued.update(task for first, size in left for task in range(first, first + size))
            if self.scheduler.can_assign:
                self._assign()

    def _assign(self) -> int:
        actions = self.scheduler.assign(self.now)
        for worker, spans in actions:
            for span in spans:
                tasks = range(span.first, span.end)
                assert self.queued.issuperset(tasks), "a task was assigned that is not queued"
                self._check_order(span)
                self.queued.difference_update(tasks)
                self.order.extend(tasks)
            self.inbox[worker] += spans
            self._start_next(worker)
        return len(actions)

    def _check_order(self, span: Span) -> None:
        """Nothing that any worker could run instead must come first."""
        mine = self.kinds[span.function]
        for task in self.queued:
            kind = self.kinds[self.function_of[task]]
            if not kind.needs or kind.demand == mine.demand:
                assert kind.priority < mine.priority or (
                    kind.priority == mine.priority and (kind.demand != mine.demand or task >= span.first)
                ), f"task {span.first} was assigned before task {task}"

    def _start_next(self, worker: int) -> None:
        if worker in self.runs or not self.inbox[worker]:
            return
        span = self.inbox[worker].pop(0)
        if span.count > 1:
            span, rest = span.split(1)
            self.inbox[worker].insert(0, rest)
        assert span.first not in self.started, "a task was started twice"
        self.started[span.first] = self.now
        self.runs[worker] = (span.first, span.function)
        self._later(self.now + self.kinds[span.function].seconds, "end", (worker, span.first))

    def _end(self, ended: tuple[int, int]) -> None:
        worker, task = ended
        if self.runs.get(worker, (-1, 0))[0] != task:
            return  # it was lost
        del self.runs[worker]
        self.ended[task] = self.now
        seconds = self.now - self.started[task]
        assert self.scheduler.finish(worker, task, 1, (), seconds, 8, self.now) == []
        self._start_next(worker)

    def _check_capacity(self) -> None:
        held: dict[tuple[str, str], float] = {}
        for worker, (_, function) in self.runs.items():
            for name, amount in self.kinds[function].needs.items():
                (offer,) = [
                    one for one in self.offers if one.name == name and one.is_on(self.hosts[worker])
                ]
                where = {"worker": str(worker), "host": self.hosts[worker]}.get(offer.scope, "")
                held[name, where] = held.get((name, where), 0) + amount
                assert held[name, where] * SCALE <= offer.amount, f"{name} of {where} is exceeded"


def test_a_higher_priority_is_sooner_and_equals_come_in_turn() -> None:
    run = VirtualRun([Kind(1.0), Kind(1.0, 10), Kind(1.0, -1)], ["a"])
    low, plain, high = run.submit(0.0, 2, 3), run.submit(0.0, 0, 3), run.submit(0.0, 1, 3)
    run.run()
    assert run.order == [*high, *plain, *low]


def test_what_was_prefetched_makes_way_at_once() -> None:
    run = VirtualRun([Kind(1.0), Kind(0.001, 1)], ["a", "a"])
    plain = run.submit(0.0, 0, 400, chunk=100)
    high = run.submit(5.5, 1, 1)
    run.run()
    assert run.started[high[0]] == pytest.approx(6.0), "it waits for one task, not for a batch of 100"
    assert max(run.ended.values()) == pytest.approx(200, abs=10), "what was recalled runs, too"
    assert len(run.ended) == len(plain) + 1


def test_an_urgent_task_waits_for_the_first_idle_worker_not_for_a_certain_one() -> None:
    scheduler = Scheduler()
    scheduler.set_demand(1, Demand(5.0))
    scheduler.add_worker(1)
    scheduler.add_worker(2)
    for first, function in ((0, 0), (1, 1)):
        scheduler.submit(Span(first, first, 1, function))
        ((worker, _),) = scheduler.assign(0.0)
        scheduler.finish(worker, first, 1, (), 1e-3, 8, 0.0)
    for first in (2, 3):
        scheduler.submit(Span(first, first, 1, 0, 1))
    busy = {spans[0].first: worker for worker, spans in scheduler.assign(0.0)}
    scheduler.submit(Span(4, 4, 1, 1))
    scheduler.submit(Span(5, 5, 1, 0))
    assert scheduler.assign(0.0) == [], "neither is prefetched behind a task that may be long"
    scheduler.finish(busy[3], 3, 1, (), 1e-3, 8, 0.0)
    assert [(worker, spans[0].first) for worker, spans in scheduler.assign(0.0)] == [
        (busy[3], 4),
        (busy[2], 5),
    ]


def test_what_cannot_start_holds_up_nobody() -> None:
    run = VirtualRun(
        [Kind(100.0, 5, {"licence": 1}), Kind(1.0), Kind(1.0, 0, {"gpu": 1})],
        "abc",
        ["licence=1/run", "gpu=1@c"],
    )
    run.submit(0.0, 0, 3)
    plain, gpu = run.submit(0.0, 1, 20), run.submit(0.0, 2, 5)
    run.run()
    assert max(run.ended[task] for task in [*plain, *gpu]) < 20


def test_a_large_need_is_not_starved_by_small_ones_that_come_later() -> None:
    small, large = Kind(1.0, 0, {"seat": 1}), Kind(1.0, 0, {"seat": 4})
    run = VirtualRun([small, large], "abcdef", ["seat=4/run"])
    for step in range(400):
        if step == 80:
            (waiting,) = run.submit(20.0, 1)
        run.submit(step * 0.25 + 0.1, 0)
    run.run()
    assert run.started[waiting] < 22


def test_small_needs_run_meanwhile_if_they_end_in_time() -> None:
    kinds = [Kind(100.0, 0, {"seat": 3}), Kind(1.0, 0, {"seat": 4}), Kind(1.0, 0, {"seat": 1})]
    run = VirtualRun(kinds, "abcdef", ["seat=4/run"])
    run.submit(0.0, 0)
    run.submit(0.0, 2)
    (waiting,) = run.submit(5.0, 1)
    small = run.submit(6.0, 2, 50)
    run.run()
    assert run.started[waiting] == pytest.approx(100.0), "nothing delays it"
    assert max(run.ended[task] for task in small) < 60, "its seat was not left empty for 100 s"


def test_a_lost_worker_gives_back_what_it_held() -> None:
    run = VirtualRun([Kind(5.0, 0, {"seat": 1})], "ab", ["seat=1/run"])
    tasks = run.submit(0.0, 0, 4)
    run.lose(2.0, 2)
    run.lose(3.0, 1) if 1 not in run.runs else None
    run.events.pop()
    run.run()
    assert sorted(run.ended) == list(tasks)


kinds = st.builds(
    Kind,
    st.sampled_from([0.001, 0.01, 0.3, 1.0, 7.0]),
    st.sampled_from([0, 0, 0, 1, 5, -2.5]),
    st.sampled_from(
        [
            {},
            {},
            {},
            {"seat": 1},
            {"seat": 3},
            {"disk": 40},
            {"disk": 100},
            {"big": 1},
            {"seat": 2, "big": 1},
            {"disk": 70, "seat": 0.5},
        ]
    ),
)
submits = st.tuples(st.floats(0, 20), st.integers(0, 5), st.integers(1, 30), st.sampled_from([0, 0, 1, 7]))


@given(
    st.lists(kinds, min_size=1, max_size=6),
    st.lists(submits, min_size=1, max_size=12),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_any_mix(kinds: list[Kind], submits: list[tuple[float, int, int, int]], others: list[str]) -> None:
    hosts = ["a", *others]
    run = VirtualRun(kinds, hosts, ["seat=3/run", "disk=100/host", "big=1@a"])
    for at, kind, size, chunk in sorted(submits):
        run.submit(at, kind % len(kinds), size, chunk)
    run.run()
    assert len(run.ended) == sum(size for _, _, size, _ in submits), "a task never ran"
    longest = max(kind.seconds for kind in kinds) * max([1, *(chunk for *_, chunk in submits)])
    for task, function in run.function_of.items():
        mine = kinds[function]
        before = [run.submitted[task]]
        for other, kind in run.function_of.items():
            if kinds[kind].priority > mine.priority or (
                kinds[kind].priority == mine.priority and other < task
            ):
                before.append(run.ended[other])
        assert run.started[task] <= max(before) + 3 * longest + 0.1, f"task {task} was starved"


class EventsOfAll(Events):
    """Any events, with tasks that have priorities, needs and durations of their own."""

    @initialize()
    def begin(self) -> None:
        super().begin()
        hosts = {worker: "ab"[worker % 2] for worker in range(1, 100)}
        self.scheduler.resources = Resources([parse_offer("seat=2/run"), parse_offer("disk=5/host")], hosts)
        self.scheduler.set_demand(1, Kind(1.0, 5, {"seat": 1, "disk": 2}).demand)
        self.scheduler.set_demand(2, Kind(1.0, -1, {"seat": 2}).demand._replace(longest=True, by_call=True))

    @rule(count=st.integers(1, 60), function=st.integers(0, 2), chunk=st.sampled_from([0, 0, 3]))
    def submit(self, count: int, function: int, chunk: int) -> None:
        if function == 2:
            self.scheduler.expect(self.next_id, [number % 7 for number in range(count)], ())
        super().submit(count, function, chunk)

    @rule(seconds=st.floats(0, 1.0))
    def recall(self, seconds: float) -> None:
        self.now += seconds
        assert all(self.held[worker] for worker in self.scheduler.recall(self.now))

    @invariant()
    def is_not_exceeded(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        seats = {1: 1, 2: 2}
        held = [
            max([seats.get(span.function, 0) for span in spans], default=0) for spans in self.held.values()
        ]
        assert sum(held) <= 2
        assert set(self.scheduler.resources.claims) == {
            worker for worker, spans in self.held.items() if any(span.function for span in spans)
        }
        for span in [span for spans in self.held.values() for span in spans if span.function == 2]:
            assert span.first in self.scheduler.expected

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "scheduler"):
            assert not self.scheduler.expected, "the durations of ended tasks are kept"


TestEventsOfAll = EventsOfAll.TestCase
TestEventsOfAll.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
