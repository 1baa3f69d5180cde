"""The simulated farm: each task ends once, no schedule beats the bound, and bad cases keep a floor."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.simulation.simulator import CASES, lognormal
from taskfarm.testing import Costs, Simulated, simulate

SCRIPT: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "scripts/simulate"))

FREE = Costs(send=0.0, receive=0.0, per_task=0.0, latency=0.0, batch=0.0, task=0.0)

DURATIONS = st.lists(st.floats(0.0, 2.0) | st.floats(0.0, 1e-3), max_size=200)

FLOORS = {
    "uniform": 0.95,
    "lognormal": 0.9,
    # Nobody knows that the last one is long: it starts when the others have nearly ended.
    "straggler": 0.65,
    "ascending": 0.85,
    "descending": 0.95,
    "bimodal": 0.8,
    "jump": 0.95,
    "few": 0.9,
}
"""What the farm reaches at least of the bound, with 16 workers and 400 tasks for each."""


@settings(max_examples=150, deadline=None)
@given(
    durations=DURATIONS,
    workers=st.integers(1, 40),
    costs=st.sampled_from([Costs(), FREE, Costs(send=1e-3, batch=20e-3)]),
    window=st.booleans(),
    chunk=st.sampled_from([0, 0, 1, 7]),
)
def test_any_tasks_end_once_and_take_no_less_than_the_bound(
    durations: list[float], workers: int, costs: Costs, window: bool, chunk: int
) -> None:
    # simulate itself asserts that each task ends exactly once.
    did = simulate(durations, workers, costs, window=window, chunk=chunk)
    assert did.tasks == len(durations)
    assert did.makespan >= did.bound * (1 - 1e-9)
    assert did.efficiency <= 1 + 1e-9
    assert (did.batches > 0) == (did.tasks > 0)
    assert did == simulate(durations, workers, costs, window=window, chunk=chunk)


@given(workers=st.integers(1, 5))
def test_no_tasks_take_no_time(workers: int) -> None:
    assert simulate([], workers) == Simulated(0.0, 1.0, 0.0, 1.0, 0, 0, 0.0, 0)


def test_one_task_costs_what_the_messages_cost() -> None:
    costs = Costs(send=1.0, receive=2.0, per_task=4.0, latency=8.0, batch=16.0, task=32.0)
    did = simulate([64.0], 1, costs)
    assert did.makespan == 1 + 2 + 4 + 2 * 8 + 16 + 32 + 64
    assert did.master_busy == 7 / did.makespan


def test_one_worker_is_kept_busy() -> None:
    did = simulate([1e-3] * 2000, 1)
    assert did.efficiency > 0.98
    assert did.recalls == 0
    assert did.batches < 1000


def test_a_farm_has_workers() -> None:
    with pytest.raises(ValueError, match="at least one"):
        simulate([1.0], 0)


@pytest.mark.parametrize("name", CASES)
def test_bad_cases_keep_a_floor(name: str) -> None:
    assert simulate(CASES[name](400 * 16, 0), 16).of_bound >= FLOORS[name]


@pytest.mark.parametrize("name", ["uniform", "lognormal", "bimodal", "ascending"])
def test_more_workers_never_make_it_much_worse(name: str) -> None:
    durations = CASES[name](10_000, 1)
    best = float("inf")
    for workers in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        makespan = simulate(durations, workers).makespan
        assert makespan < 1.25 * best
        best = min(best, makespan)


def test_a_recall_takes_back_what_waits_behind_a_long_task() -> None:
    durations = [1e-4] * 2000 + [1.0] + [1e-4] * 2000
    kept = simulate(durations, 2, chunk=1000)
    assert kept.recalls > 0
    assert kept.makespan < 1.0 + 4000 * 1e-4 - 50e-3


def test_one_master_cannot_serve_any_number_of_workers() -> None:
    costs = Costs(send=1e-3)
    few, many = (simulate([10e-3] * 20 * workers, workers, costs, chunk=1) for workers in (2, 100))
    assert few.master_busy < 0.5 < 0.95 < many.master_busy
    assert few.efficiency > 0.8 > 0.3 > many.efficiency


def test_durations_of_a_seed_are_the_same_again() -> None:
    for case in CASES.values():
        assert case(100, 3) == case(100, 3)
    assert sum(lognormal(100_000)) / 100_000 == pytest.approx(1e-3, rel=0.05)


def test_script_measures_costs() -> None:
    each = SCRIPT["spent"](200, 1)
    assert all(0 < seconds < 0.1 for seconds in each.values())
    assert set(each) == {"send", "receive", "batch"}


def test_script_prints_a_line_for_each_case(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT["table"].__globals__, "TASKS", 5)
    SCRIPT["table"](Costs(), 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * len(CASES)
