"""Tasks that are given back wait for results, and then are as they were: priority, needs and duration."""

import random

import pytest

from taskfarm.schedule.amounts import SCALE
from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.offers import parse_offer
from taskfarm.schedule.resources import Resources
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.schedule.states import TaskState

SEAT = (("seat", SCALE),)


def single(task: int, function: int) -> Span:
    return Span(SINGLES, task, 1, function)


def with_seats(text: str, hosts: str = "aab") -> Scheduler:
    """Workers from 1 on, with their hosts and what they offer."""
    scheduler = Scheduler()
    names = dict(enumerate(hosts, 1))
    scheduler.resources = Resources([parse_offer(text)], names)
    for worker, host in names.items():
        scheduler.add_worker(worker, host)
    return scheduler


def sent(scheduler: Scheduler, now: float = 0.0) -> dict[int, int]:
    """The worker of each task that is assigned now."""
    actions = scheduler.assign(now)
    scheduler.check()
    return {task: one.worker for one in actions for span in one.spans for task in range(span[1], span.end)}


def given_back(scheduler: Scheduler, worker: int, task: int, needs: list[int]) -> None:
    span = scheduler.answer(worker, task, 1, 0.0, 0, 1.0)
    assert span is not None
    assert scheduler.settle(worker, span, task, 1, [0], again={0: needs}) == []
    scheduler.check()


def test_its_units_are_free_while_it_waits_and_it_takes_them_again() -> None:
    scheduler = with_seats("seat=1/run")
    scheduler.set_demand(1, Demand(needs=SEAT))
    for task in (0, 1):
        scheduler.submit(single(task, 1))
    (holder,) = sent(scheduler).values()
    assert sent(scheduler) == {}
    given_back(scheduler, holder, 0, [100])
    assert scheduler.missing(0) == [100]
    (other,) = sent(scheduler, 1.0).values()
    scheduler.resolve(100, 0)
    # The seat is taken, so only who has it may get this one, too.
    assert set(sent(scheduler, 2.0).values()) <= {other}
    scheduler.finish(other, 1, 1, [], 1.0, 0, 3.0)
    sent(scheduler, 3.0)
    assert [span.first for _, span, _ in scheduler.running()] == [0]
    assert scheduler.counts().done == 1


def test_its_duration_and_its_failures_are_remembered() -> None:
    scheduler = with_seats("seat=1/run")
    scheduler.set_demand(1, Demand(longest=True, by_call=True))
    scheduler.attempts.retries[1] = 1
    scheduler.expect(0, [5.0, 50.0, 7.0], ())
    for task in range(3):
        scheduler.submit(single(task, 1))
    where = sent(scheduler)
    assert list(where) == [1, 2, 0]
    given_back(scheduler, where[0], 0, [100, 101])
    scheduler.finish(where[2], 2, 1, [], 7.0, 0, 7.0)
    assert scheduler.expected == {0: 5.0, 1: 50.0}
    scheduler.resolve(100, 0)
    assert sent(scheduler, 7.0) == {}
    scheduler.resolve(101, 0)
    ((_, again),) = sent(scheduler, 8.0).items()
    scheduler.finish(again, 0, 1, [], 5.0, 0, 13.0)
    assert scheduler.expected == {1: 50.0}


def test_it_may_be_cancelled_and_what_it_needs_may_fail() -> None:
    scheduler = with_seats("seat=3/run")
    scheduler.set_demand(1, Demand(3.0, SEAT))
    for task in range(3):
        scheduler.submit(single(task, 1))
    where = sent(scheduler)
    for task, worker in where.items():
        given_back(scheduler, worker, task, [100 + task])
    scheduler.cancel(0, 1)
    scheduler.drop_dependents(101, 0)
    scheduler.resolve(102, 0)
    assert list(sent(scheduler, 2.0)) == [2]
    assert scheduler.unfinished == 1


@pytest.mark.parametrize("how", ["cancel", "drop", "clear"])
def test_nothing_is_remembered_of_the_duration_of_what_does_not_run(how: str) -> None:
    scheduler = with_seats("seat=3/run")
    scheduler.set_demand(1, Demand(longest=True, by_call=True))
    scheduler.expect(0, [5.0], ())
    scheduler.submit(single(0, 1))
    given_back(scheduler, sent(scheduler)[0], 0, [100])
    assert scheduler.expected == {0: 5.0}
    match how:
        case "cancel":
            scheduler.cancel(0, 1)
        case "drop":
            scheduler.drop_dependents(100, 0)
        case "clear":
            scheduler.cancel_queued()
    assert not scheduler.expected
    assert scheduler.unfinished == 0


def test_a_task_that_was_cancelled_does_not_wait_again() -> None:
    scheduler = with_seats("seat=3/run")
    scheduler.submit(single(0, 1))
    ((_, worker),) = sent(scheduler).items()
    span = scheduler.answer(worker, 0, 1, 0.0, 0, 1.0)
    assert span is not None
    scheduler.settle(worker, span, 0, 1, [0], cancelled=True)
    scheduler.check()
    assert scheduler.unfinished == 0


@pytest.mark.parametrize("text", ["seat=1/host", "seat=3/run", "seat=1@a"])
def test_a_task_with_needs_goes_to_its_data_if_it_can_have_them_there(text: str) -> None:
    scheduler = with_seats(text, "aabb")
    scheduler.set_demand(1, Demand(needs=SEAT))
    # The worker that fell idle last is of host b, and comes first without data.
    scheduler.submit_waiting(single(0, 1), [100])
    scheduler.prefer(0, 1, 10)
    scheduler.resolve(100, 0)
    scheduler.submit_waiting(single(1, 1), [101])
    scheduler.prefer(1, 3, 10)
    scheduler.resolve(101, 0)
    where = sent(scheduler)
    assert where[0] in (1, 2)
    assert where[1] in ((1, 2) if text == "seat=1@a" else (3, 4))
    assert not scheduler._locality


def test_any_order_of_events_leaves_each_task_in_one_state() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        scheduler = with_seats("seat=2/run", "aabb")
        scheduler.set_demand(1, Demand(needs=SEAT))
        scheduler.set_demand(2, Demand(2.0))
        for task in range(20):
            scheduler.submit(single(task, chance.choice([0, 1, 2])))
        at: dict[int, int] = {}
        open_needs: list[int] = []
        now = 0.0
        for step in range(400):
            now += 1.0
            at.update(sent(scheduler, now))
            running = [(task, worker) for task, worker in at.items() if _is_first(scheduler, worker, task)]
            if running and chance.random() < 0.7:
                task, worker = chance.choice(running)
                del at[task]
                if chance.random() < 0.5 and step < 200:
                    open_needs.append(1000 + step)
                    given_back(scheduler, worker, task, [open_needs[-1]])
                else:
                    scheduler.finish(worker, task, 1, [], 1.0, 0, now)
            elif open_needs:
                need = open_needs.pop(chance.randrange(len(open_needs)))
                prefer = chance.choice([1, 2, 3, 4])
                for span in scheduler.dependents(need, 0):
                    scheduler.prefer(span.first, prefer, 1)
                scheduler.resolve(need, 0)
            scheduler.check()
        assert scheduler.unfinished == 0
        assert scheduler._states.tasks[TaskState.DONE] == 20
        assert not scheduler._locality
        assert not any(scheduler.resources.claims.values())


def _is_first(scheduler: Scheduler, worker: int, task: int) -> bool:
    """Whether a task is the one that its worker is running."""
    return any(one == worker and span.first == task for one, span, _ in scheduler.running())


def test_nothing_is_remembered_of_the_duration_of_a_task_cancelled_after_it_returned_futures() -> None:
    scheduler = with_seats("seat=3/run")
    scheduler.assign_function(1, 0)
    scheduler.set_demand(1, Demand(longest=True, by_call=True))
    scheduler.expect(0, [5.0], ())
    scheduler.submit(single(0, 1))
    ((_, worker),) = sent(scheduler).items()
    assert scheduler.answer(worker, 0, 1, 0.0, 0, 1.0) is not None
    scheduler.join(0, 1)
    assert scheduler.expected == {0: 5.0}
    scheduler.cancel_joined(0, 1)
    scheduler.check()
    assert not scheduler.expected
