"""Farms share the workers' time evenly, whatever their tasks last and whatever limits others have."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span


def shares(
    tasks: dict[int, tuple[float, int]],
    workers: int,
    until: float,
    opens: dict[int, float] | None = None,
    limits: dict[int, int] | None = None,
) -> dict[int, float]:
    """Seconds of work that each farm has had after `until` seconds; function and farm have the same number.

    `tasks` holds the duration and the number of the tasks of each farm, and `opens` when it submits them.
    """
    scheduler = Scheduler()
    for worker in range(workers):
        scheduler.add_worker(worker)
    first = 0
    events: list[tuple[float, int, tuple[int, Span] | None]] = []
    for farm, (_, count) in tasks.items():
        scheduler.open_farm(farm, max_workers=(limits or {}).get(farm))
        scheduler.assign_function(farm, farm)
        heapq.heappush(events, ((opens or {}).get(farm, 0.0), first, (-1, Span(first, first, count, farm))))
        first += count
    had = dict.fromkeys(tasks, 0.0)
    free = [0.0] * workers
    number = first
    while events and events[0][0] <= until:
        now, _, (worker, span) = heapq.heappop(events)  # type: ignore[misc]
        if worker < 0:
            scheduler.submit(span)
        else:
            seconds = tasks[span.function][0] * span.count
            scheduler.finish(worker, span.first, span.count, (), seconds, 8, now)
            had[span.function] += seconds
        scheduler.check()
        for worker, spans in scheduler.assign(now):
            for span in spans:
                free[worker] = max(now, free[worker]) + tasks[span.function][0] * span.count
                heapq.heappush(events, (free[worker], number, (worker, span)))
                number += 1
    return had


@pytest.mark.parametrize("seconds", [(1e-3, 1e-3), (1e-4, 1.0), (5.0, 0.01), (0.2, 30.0), (2.0, 3.0)])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_two_farms_get_half_each(seconds: tuple[float, float], workers: int) -> None:
    long = max(seconds)
    until = max(5.0, 40 * long)
    tasks = {farm: (each, int(2 * until * workers / each) + 1) for farm, each in enumerate(seconds, 1)}
    had = shares(tasks, workers, until)
    assert had[1] == pytest.approx(had[2], rel=0.05, abs=2.5 * workers * long)
    assert sum(had.values()) > 0.9 * until * workers - workers * long


def test_a_farm_that_opens_late_gets_half_from_then_on() -> None:
    tasks = {1: (0.01, 10**6), 2: (0.01, 10**6)}
    had = shares(tasks, 4, 30.0, opens={2: 20.0})
    assert had[1] == pytest.approx(4 * 25, rel=0.05)
    assert had[2] == pytest.approx(4 * 5, rel=0.05)


def test_short_calls_do_not_wait_for_a_long_queue() -> None:
    had = shares({1: (1.0, 1000), 2: (0.01, 5)}, 2, 10.0, opens={2: 5.5})
    assert had[2] == pytest.approx(0.05)


def test_a_limited_farm_leaves_the_other_workers_to_others() -> None:
    had = shares({1: (0.01, 10**6), 2: (0.01, 10**6)}, 4, 10.0, limits={1: 1})
    assert had[1] == pytest.approx(10, rel=0.1)
    assert had[2] == pytest.approx(30, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.lists(st.floats(1e-3, 2.0), min_size=2, max_size=5),
    workers=st.integers(1, 5),
    limits=st.dictionaries(st.integers(1, 5), st.integers(1, 3), max_size=3),
)
def test_every_farm_ends(seconds: list[float], workers: int, limits: dict[int, int]) -> None:
    tasks = {farm: (each, 20) for farm, each in enumerate(seconds, 1)}
    had = shares(tasks, workers, 1e9, limits={farm: n for farm, n in limits.items() if farm in tasks})
    assert had == pytest.approx({farm: 20 * each for farm, (each, _) in tasks.items()})


def test_workers_that_prepare_get_nothing_and_those_that_are_ready_do() -> None:
    scheduler = Scheduler()
    scheduler.open_farm(1, needs_ready=True)
    scheduler.open_farm(2)
    for farm in (1, 2):
        scheduler.assign_function(farm, farm)
        scheduler.submit(Span(10 * farm, 10 * farm, 4, farm, 1))
    for worker in (1, 2):
        scheduler.add_worker(worker)
        scheduler.prepare(worker)
    assert not scheduler.can_assign
    assert scheduler.is_preparing(1)
    scheduler.prepared(1)
    assert [(worker, spans[0].function) for worker, spans in scheduler.assign(0.0)] == [(1, 2)]
    scheduler.prepared(2, farm=1)
    assert [(worker, spans[0].function) for worker, spans in scheduler.assign(0.0)] == [(2, 1)]
    scheduler.prepare(2)
    assert not scheduler.is_preparing(2), "it has a task first"
    assert scheduler.finish(2, 10, 1, (), 0.1, 8, 0.0) == []
    assert scheduler.is_preparing(2)
    assert scheduler.remove_worker(2).spans == []
    assert scheduler.preparing == 0
    scheduler.check()


def test_draining_one_farm_leaves_the_other() -> None:
    scheduler = Scheduler()
    for farm in (1, 2):
        scheduler.open_farm(farm)
        scheduler.assign_function(farm, farm)
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 8, 1, 4))
    scheduler.assign(0.0)
    assert scheduler.drain(farm=1) == [1]
    assert scheduler.requeue(1, 1, 3)
    assert scheduler.finish(1, 0, 1, (), 1.0, 8, 0.0) == []
    scheduler.submit(Span(8, 8, 2, 2, 1))
    assert [spans[0].function for _, spans in scheduler.assign(0.0)] == [2]
    assert [span.function for span in scheduler.cancel_queued(1)] == [1, 1]
    assert scheduler.unfinished == 2
