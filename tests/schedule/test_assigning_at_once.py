"""A single task that an idle worker gets at once: the same as through the queue."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.walltime import Walltime

OPEN, LIMITED, PREPARED = 1, 2, 3
"""Farms: any worker, one worker at a time, and only workers that are ready."""

FUNCTIONS = {5: OPEN, 6: OPEN, 7: LIMITED, 8: PREPARED}


class Way:
    """One of two schedulers to which the same happens."""

    def __init__(self, at_once: bool) -> None:
        self.scheduler = Scheduler()
        self._at_once = at_once
        self.scheduler.open_farm(OPEN)
        self.scheduler.open_farm(LIMITED, max_workers=1)
        self.scheduler.open_farm(PREPARED, needs_ready=True)
        for function, farm in FUNCTIONS.items():
            self.scheduler.assign_function(function, farm)
            self.scheduler.attempts.retries[function] = 1

    def submit(self, task: int, function: int, nbytes: int, now: float) -> list[Any]:
        """Queue a task and assign what can be; returns what was assigned."""
        if self._at_once:
            assigned = self.scheduler.assign_single(task, function, nbytes, now)
            if assigned is not None:
                return [assigned]
        self.scheduler.submit_single(task, function, nbytes)
        return [tuple(one) for one in self.scheduler.assign(now)]

    def shown(self) -> Any:
        """What must be the same."""
        self.scheduler.check()
        loads = {
            worker: (dict(load.spans), load.seconds, load.tasks, load.last_answer)
            for worker in self.scheduler.workers
            for load in [self.scheduler.load_of(worker)]
        }
        scheduler = self.scheduler
        return scheduler.counts(), loads, list(scheduler.idle), scheduler.can_assign, scheduler.now


class Both:
    """Lets the same happen to both, and compares them."""

    def __init__(self, walltime: Walltime | None) -> None:
        self.ways = [Way(at_once=True), Way(at_once=False)]
        self.held: list[tuple[int, int, int]] = []
        self.tasks = self.workers = 0
        for way in self.ways:
            way.scheduler.walltime = walltime
        self.add_worker(is_ready=False)

    def note(self, assigned: list[list[Any]]) -> None:
        first, second = assigned
        assert first == second
        self.held += [(worker, span.first, span.count) for worker, spans in first for span in spans]

    def submit(self, function: int, nbytes: int, now: float) -> None:
        self.note([way.submit(self.tasks, function, nbytes, now) for way in self.ways])
        self.tasks += 1

    def finish(self, pick: int, now: float) -> None:
        if self.held:
            worker, first, count = self.held.pop(pick % len(self.held))
            for way in self.ways:
                way.scheduler.finish(worker, first, count, [0] if pick == 7 else [], 1e-3, 8, now)

    def add_worker(self, is_ready: bool) -> None:
        self.workers += 1
        for way in self.ways:
            way.scheduler.add_worker(self.workers)
            if is_ready:
                way.scheduler.prepare(self.workers)
                way.scheduler.prepared(self.workers, PREPARED)

    def drain(self, pick: int) -> None:
        for way in self.ways:
            way.scheduler.drain(pick % 2 == 0, OPEN if pick < 4 else None)

    def assign(self, now: float) -> None:
        self.note([[tuple(one) for one in way.scheduler.assign(now)] for way in self.ways])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=10, max_size=60),
    st.sampled_from([None, Walltime(10)]),
)
def test_same_as_through_the_queue(events: list[tuple[int, int]], walltime: Walltime | None) -> None:
    both = Both(walltime)
    for now, (kind, pick) in enumerate(events, 1):
        if kind < 4:
            both.submit(5 + pick % 4, pick % 3, now)
        elif kind < 7:
            both.finish(pick, now)
        elif kind == 7:
            both.add_worker(is_ready=pick % 2 == 1)
        elif kind == 8:
            both.drain(pick)
        else:
            both.assign(now)
        first, second = (way.shown() for way in both.ways)
        assert first == second


def test_rules_are_obeyed() -> None:
    scheduler = Scheduler()
    assert scheduler.assign_single(0, 5, 0, 0.0) is None
    scheduler.add_worker(1)
    scheduler.add_worker(2)
    assert scheduler.assign_single(0, 5, 0, 0.0) == (2, [(-1, 0, 1, 5, 0)])
    scheduler.submit_single(1, 5)
    assert scheduler.assign_single(2, 5, 0, 0.0) is None
    assert [worker for worker, _ in scheduler.assign(0.0)] == [1]
    scheduler.finish(2, 0, 1, (), 1e-3, 0, 0.0)
    for farm in (0, None):
        scheduler.drain(True, farm)
        assert scheduler.assign_single(2, 5, 0, 0.0) is None
        scheduler.drain(False, farm)
    scheduler.set_demand(6, Demand(priority=1))
    assert scheduler.assign_single(3, 6, 0, 0.0) is None
    assert scheduler.counts().total == 2
