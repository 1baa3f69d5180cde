"""Tasks that would not end before the walltime do not start, in virtual time."""

from random import Random

import pytest

from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span
from taskfarm.schedule.walltime import Walltime


def worked(
    durations: list[float], workers: int, ends: float, demand: Demand | None, known: bool
) -> tuple[Scheduler, dict[int, tuple[float, float]], dict[int, float]]:
    """Run tasks until nothing more starts: when each started and ended, and when each worker did."""
    scheduler = Scheduler()
    scheduler.walltime = Walltime(ends)
    for worker in range(workers):
        scheduler.add_worker(worker)
    if demand is not None:
        scheduler.set_demand(0, demand)
    if known:
        scheduler.expect(0, durations, ())
    scheduler.submit(Span(0, 0, len(durations), 0))
    times: dict[int, tuple[float, float]] = {}
    free = dict.fromkeys(range(workers), 0.0)
    running: list[tuple[float, int, Span]] = []
    now = 0.0
    while True:
        for worker, spans in scheduler.assign(now):
            for span in spans:
                for task in range(span.first, span.end):
                    began = max(now, free[worker])
                    free[worker] = began + durations[task]
                    times[task] = began, free[worker]
                running.append((free[worker], worker, span))
        scheduler.check()
        if not running:
            return scheduler, times, free
        running.sort()
        now, worker, span = running.pop(0)
        spent = sum(durations[span.first : span.end])
        scheduler.finish(worker, span.first, span.count, (), spent, 8, now)


@pytest.mark.parametrize("longest", [False, True])
def test_known_durations_fill_the_time_and_none_is_cut_short(longest: bool) -> None:
    random = Random(1)
    durations = [random.lognormvariate(0, 1.5) for _ in range(2000)]
    ends = sum(durations) / 7 / 2
    demand = Demand(longest=longest, by_call=True)
    scheduler, times, free = worked(durations, 7, ends, demand, known=True)
    assert max(end for _, end in times.values()) <= ends
    left = [durations[task] for task in range(2000) if task not in times]
    assert min(left) > ends - min(free.values()), "a task that would have ended in time did not start"
    assert ends - min(free.values()) < 1
    assert scheduler.num_late(max(free.values())) == len(left)


def test_measured_durations_decide_if_nothing_else_is_known() -> None:
    random = Random(2)
    durations = [random.uniform(0.5, 1.5) for _ in range(1000)]
    scheduler, times, free = worked(durations, 4, 50.0, None, known=False)
    assert sum(end > 50 for _, end in times.values()) <= 1
    assert min(free.values()) > 50 - 2.5
    assert scheduler.num_late(50.0) == 1000 - len(times)
    assert not scheduler.fail_too_long()


def test_late_tasks_hold_up_no_others_and_come_back_if_the_estimate_falls() -> None:
    scheduler = Scheduler()
    scheduler.walltime = Walltime(100.0)
    scheduler.add_worker(1)
    scheduler.set_demand(2, Demand(seconds=101.0))
    for first, function in ((0, 1), (1, 0), (2, 2), (3, 0)):
        scheduler.submit(Span(first, first, 1, function))
    assert scheduler.assign(0.0)[0].spans[0].first == 0
    assert scheduler.finish(1, 0, 1, (), 60.0, 8, 60.0) == []
    scheduler.submit(Span(4, 4, 2, 1))
    for task in (1, 3):
        ((_, (span,)),) = scheduler.assign(60.0)
        assert span.first == task, "task 2 is too long for any run, and 4 and 5 for this one"
        scheduler.finish(1, task, 1, (), 1.0, 8, 60.0)
    assert scheduler.assign(60.0) == []
    assert scheduler.has_too_long
    assert scheduler.fail_too_long() == [(Span(2, 2, 1, 2), 101.0)]
    assert scheduler.num_late(60.0) == 2
    assert scheduler.cancel(5, 1) == [Span(4, 5, 1, 1)]
    for _ in range(40):
        scheduler.estimate(1).update(1, 1.0, 8)
    assert scheduler.num_late(60.0) == 0
    assert scheduler.assign(60.0)[0].spans[0].first == 4
    scheduler.check()
