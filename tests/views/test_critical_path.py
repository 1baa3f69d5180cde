"""The critical path of a run, and the arrows between tasks in its trace."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import testing
from taskfarm.views.critical_path import MOST_STEPS, CriticalPath, EndedParts
from taskfarm.views.report import report
from taskfarm.views.trace import Trace
from tests.views.recorded import ran
from tests.views.report.made import ABOUT, run


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """What each task depends on, and the sizes of the parts in which they end."""
    tasks = draw(st.integers(1, 30))
    on = [draw(st.lists(st.integers(0, task - 1), max_size=3)) if task else [] for task in range(tasks)]
    return on, draw(st.lists(st.integers(1, 4), min_size=tasks, max_size=tasks))


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_it_is_the_longest_of_all_chains(graph: tuple[list[list[int]], list[int]]) -> None:
    on, sizes = graph
    path, first = CriticalPath(), 0
    seconds: list[float] = []
    for size in sizes:
        size = min(size, len(on) - first)
        # Tasks of one part travel together, so none depends on another one of them.
        while size > 1 and any(one >= first for task in range(first, first + size) for one in on[task]):
            size -= 1
        if not size:
            break
        for task in range(first, first + size):
            for one in on[task]:
                path.task_depends(task, one)
        each = 1.0 + first % 5
        path.calls_finished(
            ran(9.0, f"f{first % 3}", size, seconds=each * size, first=first, again=[0] if size > 1 else [])
        )
        if size > 1:
            path.calls_finished(ran(9.5, f"f{first % 3}", 1, seconds=each, first=first, attempt=2))
        seconds += [each] * size
        first += size
    chains: list[float] = []
    for task, duration in enumerate(seconds):
        chains.append(duration + max((chains[one] for one in on[task]), default=0.0))
    depending = [chain for chain, before in zip(chains, on, strict=False) if before]
    steps = path.steps()
    assert (steps[-1].total if steps else None) == max(depending, default=None)
    assert sum(step.seconds for step in steps) == (steps[-1].total if steps else 0)
    assert not path._depends


def test_a_long_chain_takes_bounded_memory() -> None:
    path = CriticalPath()
    for task in range(4 * MOST_STEPS):
        if task:
            path.task_depends(task, task - 1)
        path.calls_finished(ran(9.0, "ab"[task % 2], seconds=1.0, first=task))
    assert path.longest is not None
    assert path.longest.total == path.longest.depth == 4 * MOST_STEPS
    assert len(path.steps()) <= 2 * MOST_STEPS


def test_only_the_last_parts_are_remembered() -> None:
    parts: EndedParts[str] = EndedParts(100)
    for first in range(0, 1000, 10):
        parts.add(first, 5, f"{first}")
    assert parts.find(994) == (4, "990")
    assert parts.find(995) is None
    assert parts.find(0) == (0, "0")
    parts.add(1000, 1, "more")
    assert parts.find(0) is None
    assert parts.find(1000) == (0, "more")


def test_a_trace_has_an_arrow_for_each_dependency(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "run.json"), 0.0)
    for worker in (1, 2):
        trace.worker_joined(0.0, worker, "host")
    trace.calls_finished(ran(2.0, "load", 2, seconds=2.0, first=0, worker=1))
    trace.task_depends(2, 0)
    trace.task_depends(2, 1)
    trace.task_depends(3, 1)
    trace.tasks_dropped(3, 1)
    trace.calls_finished(ran(4.0, "fit", seconds=1.0, first=2, worker=2))
    trace.close()
    events = json.loads((tmp_path / "run.json").read_text())
    arrows = [event for event in events if event.get("cat") == "depends"]
    ends = {(event["id"], event["ph"]): (event["tid"], event["ts"]) for event in arrows}
    assert ends == {
        (1, "s"): (2, 999_999.9),
        (1, "f"): (4, 3_000_000.0),
        (2, "s"): (2, 1_999_999.9),
        (2, "f"): (4, 3_000_000.0),
    }


def test_a_farm_tells_recorders_what_depends_on_what() -> None:
    path = CriticalPath()
    farm = testing.farm(workers=2)
    farm._master.outstanding.events.add(path)
    with farm:
        first = farm.submit(abs, -1)
        second = farm.submit(max, first, 5)
        third = farm.submit(max, [second, first])
        assert third.result() == 5
        cancelled = farm.submit(max, third, farm.submit(max, 1))
        assert isinstance(cancelled.exception(), Exception)
    farm._master.outstanding.events.flush()
    assert [(step.name, step.count) for step in path.steps()] == [("abs", 1), ("max", 2)]
    assert not path._depends


def test_the_report_names_it(tmp_path: Path) -> None:
    made = run(2, 4)
    assert "Critical path" not in report.page(made.timeline, made.summary, [], ABOUT, made.now)
    made.timeline.calls_finished(ran(1.0, "load", seconds=0.5, first=1000))
    made.timeline.task_depends(1001, 1000)
    made.timeline.calls_finished(ran(2.0, "fit", seconds=1.0, first=1001))
    text = report.page(made.timeline, made.summary, [], ABOUT, made.now)
    assert "The longest chain of tasks that waited for each other took 1.5 s," in text
    assert '<th scope="row">fit</th><td>1001</td><td>1</td><td>1 s</td><td>1.5 s</td>' in text
