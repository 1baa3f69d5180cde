"""The queue of tasks that tasks have submitted: the newest of the deepest first, and none is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.schedule.nested_queue import NESTED_BATCH, NestedQueue
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span


def span(first: int, count: int = 1) -> Span:
    return Span(first, first, count, 0)


def test_the_deepest_come_first_and_a_task_that_waits_gets_its_own() -> None:
    others = TaskQueue()
    others.append(span(1))
    queue = NestedQueue(others)
    queue.add(span(10), 0, -1, waits=False)
    queue.add(span(20), 0, -1, waits=False)
    queue.add(span(30), 10, 10, waits=False)
    queue.add(span(40), 5, -1, waits=False)
    assert [one.first for one in queue.take(4)] == [40]
    assert queue.head_below(10) == span(30)
    assert queue.head_below(40) is None
    assert queue.take_below(0, 9) == [span(30)]
    queue.end(10)
    queue.push_front(span(30))
    assert queue.head_below(0) == span(30)
    assert [one.first for one in queue.take_below(0, 9)] == [30, 20, 10]
    assert queue.take(4) == [span(1)]
    assert not queue


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(1, 12)), max_size=60))
def test_no_task_is_lost_or_given_twice(steps: list[tuple[int, int, int]]) -> None:
    queue = NestedQueue(TaskQueue())
    queue.append(span(0))
    above: dict[int, int] = {}
    sources: dict[int, int] = {0: -1}
    taken: set[int] = {0}
    queued = {0}
    queue.take(1)
    queued.clear()
    running, ended, number = [0], set(), 1

    def is_below(task: int, ancestor: int) -> bool:
        while task in above:
            task = above[task]
            if task == ancestor:
                return True
        return False

    for kind, pick, count in steps:
        task = running[pick % len(running)]
        if kind in (0, 1):
            queue.add(span(number, count), task, sources[task], waits=False)
            for child in range(number, number + count):
                above[child], sources[child] = task, number
                queued.add(child)
            number += count
        elif kind == 2 and len(running) > 1 and task:
            queue.end(task)
            running.remove(task)
            ended.add(task)
        else:
            head = queue.head if kind == 3 else queue.head_below(task)
            below = {one for one in queued if is_below(one, task)}
            assert (head is None) == (not (queued if kind == 3 else below))
            if head is None:
                continue
            spans = queue.take(count) if kind == 3 else queue.take_below(task, count)
            got = {one for part in spans for one in range(part.first, part.end)}
            assert got <= (queued if kind == 3 else below)
            assert 0 < len(got) <= min(count, NESTED_BATCH)
            queued -= got
            running += sorted(got)
            taken |= got
        assert queue.count == len(queued)
        assert bool(queue) == bool(queued)
    rest = {one for part in queue.clear() for one in range(part.first, part.end)}
    assert rest == queued
    assert not queue


def test_a_worker_whose_task_waits_gets_descendants_only() -> None:
    scheduler = Scheduler()
    scheduler.assign_function(0, 0)
    scheduler.add_worker(1)
    for first in (0, 1):
        scheduler.submit(span(first))
    assert scheduler.assign(0.0) == [(1, [span(0)])]
    scheduler.spawn(span(2, 3), 0, 0)
    scheduler.wait(1, 0, 0)
    assert scheduler.assign(0.0) == []
    assert scheduler.can_assign
    assert scheduler.help(0.0) == [(1, [Span(2, 2, 1, 0)], 0)]
    assert scheduler.help(0.0) == []
    scheduler.check()
