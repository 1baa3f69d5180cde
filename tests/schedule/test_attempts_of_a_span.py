"""A span that is sent has one attempt number, whatever came back to the queue before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span

PLAIN, MEASURED, LONGEST = 1, 2, 3


def scheduler(workers: int) -> Scheduler:
    made = Scheduler()
    made.set_demand(LONGEST, Demand(longest=True))
    for worker in range(1, workers + 1):
        made.add_worker(worker)
    for function in (PLAIN, MEASURED, LONGEST):
        made.attempts.retries[function] = 5
    made.attempts.max_kills = 100
    # Many of these fit into one batch.
    made.estimate(MEASURED).update(1000, 1e-3, 0)
    made.estimate(LONGEST).update(1000, 1e-3, 0)
    return made


def assign(made: Scheduler) -> list[tuple[int, Span]]:
    """What is sent, with its workers; each span has one attempt number."""
    sent = [(action.worker, span) for action in made.assign(0.0) for span in action.spans]
    for _, span in sent:
        assert len({made.attempts.attempt(task) for task in range(span.first, span.end)}) == 1, span
    return sent


@pytest.mark.parametrize("function", [PLAIN, MEASURED, LONGEST])
def test_a_task_that_follows_a_returned_retry_is_not_sent_as_one(function: int) -> None:
    made = scheduler(1)
    made.submit_single(0, function)
    assign(made)
    assert made.finish(1, 0, 1, [0], 0.1, 0, 0.0) == [0]
    assign(made)
    assert made.requeue(1, 0, 1)
    for task in range(1, 100):
        made.submit_single(task, function)
    ended: list[int] = []
    while sent := assign(made):
        for worker, span in sent:
            ended += range(span.first, span.end)
            made.finish(worker, span.first, span.count, [], 0.1, 0, 0.0)
    assert ended == list(range(100))
    made.check()


@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("smnfrdw"), st.integers(0, 7)), max_size=40))
def test_no_span_mixes_attempts(workers: int, steps: list[tuple[str, int]]) -> None:
    made = scheduler(workers)
    held: list[tuple[int, Span]] = []
    task = 0
    for step, number in steps:
        if step in "smn":
            function = (PLAIN, MEASURED, LONGEST)[number % 3]
            if step == "s":
                for one in range(task, task + 30):
                    made.submit_single(one, function)
                task += 30
            elif step == "m":
                made.submit(Span(task, task, 1 + number, function))
                task += 1 + number
            else:
                made.submit_waiting(Span(-1, task, 1, function), [-5])
                made.resolve(-5, 0)
                task += 1
        elif held:
            worker, span = held.pop(number % len(held))
            if step == "f":
                made.finish(worker, span.first, span.count, [span.count - 1], 0.1, 0, 0.0)
            elif step == "r":
                made.requeue(worker, span.first, span.count)
            elif step == "d":
                made.finish(worker, span.first, span.count, [], 0.1, 0, 0.0)
            else:
                made.remove_worker(worker)
                held = [one for one in held if one[0] != worker]
                made.add_worker(worker)
        held += assign(made)
        made.check()
