"""Time for which no task was ready, because all that were left waited for others, is a part of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskfarm
from taskfarm import testing
from taskfarm.master.farm_time import FarmTime
from taskfarm.master.recorders import Recorder
from taskfarm.views.summary import Summary
from taskfarm.views.trace import Trace
from tests.views.recorded import ran, span


@taskfarm.task
def fib(n: int) -> int:
    """A number of Fibonacci, by tasks that wait for tasks."""
    if n < 2:
        return n
    before = fib.submit(n - 1)
    return before.result() + fib.submit(n - 2).result()


class Run:
    """A run in virtual time whose main thread waits for the farm all the time."""

    def __init__(self, workers: int) -> None:
        self.now = 0.0
        self.farm_time = FarmTime(lambda: self.now, 0.0)
        self.farm_time.enter("waiting")
        self.workers = workers
        self.summary = Summary(0.0, workers, self.farm_time)
        for worker in range(1, workers + 1):
            self.summary.worker_joined(0.0, worker, "here")
        self.summary.batch_sent(0.0, 1, [span()], workers)

    def end(self, now: float) -> dict[str, Any]:
        """End the run; returns the parts of its budget, which add up."""
        self.now = now
        figures = self.summary.figures(now)
        parts: dict[str, Any] = figures["budget_seconds"]
        assert sum(parts.values()) == pytest.approx(self.workers * now)
        assert min(parts.values()) >= 0.0
        self.limit = figures["limit"]
        return parts


class Graph(NamedTuple):
    """Tasks of some seconds, each of which needs some of those before it, and a number of workers."""

    seconds: list[int]
    needs: list[set[int]]
    workers: int


@st.composite
def graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Graph:
    seconds = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    needs = [
        draw(st.sets(st.integers(0, task - 1), max_size=2)) if task else set()
        for task in range(len(seconds))
    ]
    return Graph(seconds, needs, draw(st.integers(1, 3)))


@given(graphs())
def test_idle_time_is_divided_by_whether_tasks_wait(graph: Graph) -> None:
    """Each worker is followed second by second."""
    run = Run(graph.workers)
    left, ended = set(range(len(graph.seconds))), set[int]()
    busy: dict[int, tuple[int, int, int]] = {}
    queued: dict[int, int] = {}
    not_ready = tail = now = 0
    told = False
    while len(ended) < len(graph.seconds):
        for worker, (task, since, end) in list(busy.items()):
            if end == now:
                del busy[worker]
                ended.add(task)
                calls = ran(
                    now, seconds=now - since, first=task, worker=worker, queued=queued[task], sent=since
                )
                run.summary.calls_finished(calls)
        ready = [task for task in sorted(left) if graph.needs[task] <= ended]
        for task in ready:
            queued.setdefault(task, now)
        for worker in range(1, graph.workers + 1):
            if worker not in busy and ready:
                task = ready.pop(0)
                left.discard(task)
                busy[worker] = (task, now, now + graph.seconds[task])
        wait = any(not graph.needs[task] <= ended for task in left)
        if wait is not told:
            told = wait
            run.summary.waiting_changed(now, wait)
        if len(ended) < len(graph.seconds):
            idle = graph.workers - len(busy)
            not_ready += idle * wait
            tail += idle * (not wait)
            now += 1
    parts = run.end(now)
    assert parts["cpu"] + parts["other_wait"] == pytest.approx(sum(graph.seconds))
    assert parts["not_ready"] == pytest.approx(not_ready, abs=0.2)
    assert parts["tail"] == pytest.approx(tail, abs=0.2)


def test_a_task_that_waits_for_its_own_tasks_has_all_its_time() -> None:
    """A task of 1 s submits two, one after the other, of 2 s and 3 s, and goes on for 4 s."""
    run = Run(2)
    tell = run.summary
    tell.task_suspended(1.0, 1, 0, 0.0, 0.0)
    tell.waiting_changed(1.0, True)
    # The other worker runs the first, and its own worker the second.
    tell.task_suspended(2.0, 1, 0, 0.0, 0.0)
    tell.calls_finished(ran(3.0, seconds=2.0, first=1, worker=2, queued=1.0, sent=1.0))
    tell.task_resumed(3.0, 1)
    tell.task_suspended(3.0, 1, 0, 0.0, 0.0)
    tell.calls_finished(ran(6.0, seconds=3.0, first=2, worker=1, queued=3.0, sent=3.0))
    tell.waiting_changed(6.0, False)
    halfway = dict(run.summary.figures(6.0)["budget_seconds"])
    tell.calls_finished(ran(10.0, seconds=5.0, first=0, worker=1, queued=0.0, sent=0.0))
    parts = run.end(10.0)
    assert halfway["unfinished"] == pytest.approx(1.0)
    assert parts["cpu"] + parts["other_wait"] == pytest.approx(10.0)
    assert parts["not_ready"] == pytest.approx(2.0 + 3.0, abs=0.1)
    assert parts["tail"] == pytest.approx(1.0 + 4.0, abs=0.1)
    assert "for 25% of the time no task was ready" in run.limit


def test_what_was_done_in_a_task_that_waited_is_lost_with_its_worker() -> None:
    run = Run(2)
    run.summary.task_suspended(2.0, 1, 0, 0.0, 0.0)
    run.summary.waiting_changed(2.0, True)
    run.summary.worker_lost(3.0, 1, "it died")
    parts = run.end(4.0)
    assert (parts["wasted"], parts["lost"]) == (pytest.approx(3.0), pytest.approx(1.0))


def test_time_without_tasks_is_after_the_last_one_only_at_the_end() -> None:
    """The job submits one task, computes, and submits another one."""
    run = Run(1)
    run.farm_time.leave()
    run.summary.calls_finished(ran(1.0, seconds=1.0, queued=0.0))
    run.now = 5.0
    run.summary.calls_finished(ran(6.0, seconds=1.0, first=1, queued=5.0))
    parts = run.end(8.0)
    assert (parts["between"], parts["after"]) == (pytest.approx(4.0), pytest.approx(2.0))


class Keeps(Recorder):
    """Keeps what it is told of tasks that wait."""

    def __init__(self) -> None:
        self.waiting: list[bool] = []
        self.suspended: dict[int, int] = {}

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        self.waiting.append(some_wait)

    def task_suspended(self, now: float, worker: int, task: int, queued: float, sent: float) -> None:
        assert queued <= sent <= now
        self.suspended[task] = self.suspended.get(task, 0) + 1


def test_the_trace_shows_when_tasks_wait(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "run.json"), 1.0)
    trace.waiting_changed(2.0, True)
    trace.waiting_changed(5.0, False)
    trace.close()
    events = json.loads((tmp_path / "run.json").read_text())
    waits = [(event["ph"], event["ts"]) for event in events if event.get("cat") == "waiting"]
    assert waits == [("b", 1e6), ("e", 4e6)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_farm_tells_when_tasks_wait(workers: int) -> None:
    keeps = Keeps()
    farm = testing.farm(workers=workers)
    events = farm._master.outstanding.events
    events.add(keeps)
    with farm:
        assert sum(farm.map(abs, range(50))) == 1225
        events.flush()
        assert not keeps.waiting
        first = farm.submit(abs, -1)
        assert farm.submit(abs, farm.submit(abs, first)).result() == 1
        assert farm.submit(fib, 6).result() == 8
    events.flush()
    assert keeps.waiting == [True, False] * (len(keeps.waiting) // 2)
    assert keeps.waiting
    assert keeps.suspended
