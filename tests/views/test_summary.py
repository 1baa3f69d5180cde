"""What a run tells at its end: figures that add up, and what limited it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.views.durations import Durations
from taskfarm.views.summary import Summary
from tests.views.recorded import ran, registered, span


@given(st.lists(st.floats(1e-7, 1e4), min_size=1, max_size=300))
def test_percentiles_are_right_to_a_few_percent(durations: list[float]) -> None:
    row = Durations()
    for seconds in durations:
        row.add(seconds)
    assert sum(row.bins.values()) == len(durations)
    assert row.slowest == max(durations)
    for share in (0.5, 0.99):
        ordered = sorted(durations)
        exact = ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
        assert row.percentile(share) == pytest.approx(exact, rel=0.05)


def test_figures_add_up() -> None:
    summary = Summary(0.0)
    summary.batch_sent(0.0, 1, [span(count=100)], 2)
    errors: dict[int, BaseException] = dict.fromkeys((3, 5, 7), ValueError())
    summary.calls_finished(ran(1.0, "one", 100, failures=errors, seconds=1.0, nbytes=1000))
    summary.calls_finished(ran(2.0, "two", failures={0: ValueError()}, seconds=2.0, nbytes=5))
    figures = json.loads(json.dumps(summary.figures(4.0)))
    assert (figures["tasks"], figures["failed"], figures["bytes"]) == (101, 4, 1005)
    assert figures["functions"]["one"]["mean_seconds"] == pytest.approx(0.01)
    assert figures["functions"]["two"]["slowest_seconds"] == 2.0
    assert (figures["task_seconds"], figures["wall_seconds"]) == (3.0, 4.0)


def test_a_task_and_its_retries_count_once() -> None:
    summary = Summary(0.0)
    for _ in range(3):
        summary.batch_sent(0.0, 1, [span()], 1)
        summary.calls_finished(ran(1.0, "flaky", failures={0: ValueError()}, again=[0], seconds=1.0))
    summary.calls_finished(ran(2.0, "flaky", seconds=1.0))
    figures = summary.figures(4.0)
    assert (figures["tasks"], figures["failed"], figures["task_seconds"]) == (1, 0, 4.0)
    assert figures["functions"]["flaky"]["retried"] == 3
    assert figures["functions"]["flaky"]["mean_seconds"] == 1.0


def test_what_fails_on_the_master_counts() -> None:
    summary = Summary(0.0)
    summary.tasks_failed(1.0, registered("lost"), 0, 3, ValueError())
    assert summary.figures(1.0)["failed"] == summary.figures(1.0)["tasks"] == 3


def test_many_functions_make_a_short_table() -> None:
    summary = Summary(0.0)
    for number in range(30):
        summary.batch_sent(0.0, 1, [span()], 1)
        summary.calls_finished(ran(1.0, f"function{number}" * 9, seconds=1.0))
    lines = summary.table(1.0).splitlines()
    assert len(lines) < 16
    assert max(map(len, lines)) < 180
    assert "and 20 more functions" in lines
