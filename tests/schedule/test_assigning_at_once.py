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


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=10, max_size=60), st.booleans())
def test_same_as_through_the_queue(events: list[tuple[int, int]], has_walltime: bool) -> None:
    ways = [Way(at_once=True), Way(at_once=False)]
    held: list[tuple[int, int, int]] = []
    added = 1
    now = task = 0
    for way in ways:
        way.scheduler.add_worker(added, "host 1")
        way.scheduler.walltime = Walltime(10) if has_walltime else None

    def note(assigned: list[Any]) -> None:
        held.extend((worker, span.first, span.count) for worker, spans in assigned for span in spans)

    for kind, pick in events:
        now += 1
        if kind < 4:
            function = 5 + pick % 4
            first, second = (way.submit(task, function, pick % 3, now) for way in ways)
            assert first == second
            note(first)
            task += 1
        elif kind < 7 and held:
            worker, first_task, count = held.pop(pick % len(held))
            failed = [0] if pick == 7 else []
            for way in ways:
                way.scheduler.finish(worker, first_task, count, failed, 1e-3, 8, now)
        elif kind == 7:
            added += 1
            for way in ways:
                way.scheduler.add_worker(added, f"host {added % 2}")
                if pick % 2:
                    way.scheduler.prepare(added)
                    way.scheduler.prepared(added, PREPARED)
        elif kind == 8:
            for way in ways:
                way.scheduler.drain(pick % 2 == 0, [None, OPEN][pick // 4])
        else:
            first, second = ([tuple(one) for one in way.scheduler.assign(now)] for way in ways)
            assert first == second
            note(first)
        assert ways[0].shown() == ways[1].shown()


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
    scheduler.set_demand(6, Demand(priority=1))
    assert scheduler.assign_single(3, 6, 0, 0.0) is None
    assert scheduler.counts().total == 2
