"""Tasks go where their data is, if a worker there is free soon."""

from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span


def three_hosts() -> Scheduler:
    scheduler = Scheduler()
    for worker in range(1, 7):
        scheduler.add_worker(worker, f"h{worker % 3}")
    return scheduler


def ready(scheduler: Scheduler, task: int, *data: tuple[int, int]) -> None:
    """A task has got what it waited for."""
    scheduler.submit_waiting(Span(SINGLES, task, 1, 1), [1000 + task])
    for worker, nbytes in data:
        scheduler.prefer(task, worker, nbytes)
    scheduler.resolve(1000 + task, 0)


def sent(scheduler: Scheduler, now: float = 0.0) -> dict[int, int]:
    """The worker of each task that is assigned now."""
    return {
        task: action.worker
        for action in scheduler.assign(now)
        for span in action.spans
        for task in range(span.first, span.end)
    }


def test_a_task_runs_on_the_host_that_has_most_of_its_data() -> None:
    scheduler = three_hosts()
    ready(scheduler, 0, (1, 100), (2, 500), (3, 400))
    ready(scheduler, 1, (1, 100))
    ready(scheduler, 2)
    where = sent(scheduler)
    assert where[0] in (2, 5)
    assert where[1] in (1, 4)
    assert where[2] == 6
    scheduler.check()


def test_if_all_of_a_host_are_busy_another_one_runs_it() -> None:
    scheduler = three_hosts()
    for task in range(20):
        ready(scheduler, task, (3, 100))
    where = sent(scheduler)
    # Each worker of that host has what it can have in hand; others take the rest, and what is recalled.
    assert {3, 6} < set(where.values())
    (held, *_) = [task for task, worker in where.items() if worker == 3][1:] or [None]
    for worker in scheduler.recall(100.0):
        for task in [task for task, other in where.items() if other == worker][1:]:
            scheduler.requeue(worker, task, 1)
    scheduler.check()
    assert held is None or sent(scheduler, 100.0)


def test_on_one_host_and_for_tasks_that_end_otherwise_nothing_is_remembered() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1, "h")
    scheduler.add_worker(2, "h")
    ready(scheduler, 0, (1, 100))
    assert not scheduler._locality
    scheduler.add_worker(3, "other")
    ready(scheduler, 1, (1, 100))
    ready(scheduler, 2, (1, 100))
    assert scheduler._locality
    scheduler.cancel(1, 1)
    scheduler.cancel_queued()
    assert not scheduler._locality
    scheduler.check()
