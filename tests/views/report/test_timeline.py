"""The picture of a run: nothing is lost, whatever the order and length of calls, in bounded memory."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.master.recorders import FinishedCalls
from taskfarm.views.report import timeline
from taskfarm.views.report.timeline import Part, Timeline
from tests.views.recorded import ran, registered

PARTS = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from("fgh"),
        st.floats(0.0, 1e4),
        st.one_of(st.floats(0.0, 1e-3), st.floats(0.0, 1e4)),
        st.integers(1, 50),
    ),
    min_size=1,
    max_size=60,
)


def taken(parts: list[FinishedCalls], workers: int = 5) -> Timeline:
    found = Timeline(workers, 100.0)
    for part in parts:
        found.calls_finished(part)
    found.add_up()
    return found


def made(parts: list[tuple[int, str, float, float, int]]) -> list[FinishedCalls]:
    return [
        ran(100.0 + started + seconds, name, count, seconds=seconds, worker=worker, first=number)
        for number, (worker, name, started, seconds, count) in enumerate(parts)
    ]


@given(PARTS, st.randoms(use_true_random=False))
def test_busy_seconds_add_up_in_any_order(
    parts: list[tuple[int, str, float, float, int]], order: random.Random
) -> None:
    whole = taken(made(parts))
    order.shuffle(parts)
    shuffled = taken(made(parts))
    for worker in range(6):
        seconds = sum(part[3] for part in parts if part[0] == worker)
        assert whole.busy()[worker].sum(dtype=float) == pytest.approx(seconds, rel=1e-5, abs=1e-6)
    assert whole.width == shuffled.width
    assert np.allclose(whole.busy(), shuffled.busy(), rtol=1e-4, atol=1e-4)
    assert whole.ends()[0].sum() == sum(part[4] for part in parts)
    assert np.array_equal(whole.ends()[0], shuffled.ends()[0])


@given(PARTS)
def test_each_second_lies_in_its_bin(parts: list[tuple[int, str, float, float, int]]) -> None:
    found = taken(made(parts))
    edges = np.arange(found.busy().shape[1]) * found.width
    for worker in range(1, 6):
        expected = sum(
            (
                np.clip(
                    np.minimum(start + seconds, edges + found.width) - np.maximum(start, edges), 0, None
                )
                for who, _, start, seconds, _ in parts
                if who == worker
            ),
            np.zeros(edges.size),
        )
        assert np.allclose(found.busy()[worker], expected, rtol=1e-4, atol=1e-3)


@given(PARTS)
def test_a_function_with_more_than_half_of_a_cell_leads_it(
    parts: list[tuple[int, str, float, float, int]],
) -> None:
    found = Timeline(5, 100.0)
    for part in made(parts):
        found.calls_finished(part)
        found.add_up()
    names, edges = found.names, np.arange(found.busy().shape[1]) * found.width
    shares = np.zeros((len(names), 6, edges.size))
    for worker, name, start, seconds, _ in parts:
        inside = np.minimum(start + seconds, edges + found.width) - np.maximum(start, edges)
        shares[names.index(name), worker] += np.clip(inside, 0, None)
    for number in range(len(names)):
        # Float32 cannot tell a majority of less than this.
        leads = shares[number] > 0.501 * shares.sum(axis=0) + 1e-3
        assert (found.leaders()[leads] == number).all()


def test_merging_loses_nothing() -> None:
    found = taken(made([(1, "f", number / 64, 1 / 128, 1) for number in range(64)]))
    before = found.busy().sum(dtype=float)
    assert found.width < 0.01
    found.calls_finished(ran(100.0 + 5e6, "g", seconds=1.0, worker=2))
    found.add_up()
    assert found.width > 1000
    assert found.busy().sum(dtype=float) == before + 1.0
    assert found.ends()[0].sum() == 65
    assert found.leaders()[1, 0] == 0


@pytest.mark.parametrize("workers", [1, 10, 1000, 10_000, 100_000])
def test_memory_is_bounded(workers: int) -> None:
    found = Timeline(workers, 0.0)
    found.calls_finished(ran(1e6, seconds=1e6, worker=workers))
    found.add_up()
    assert found.busy().size <= timeline.CELLS
    assert workers // found.ranks_per_lane == found.busy().shape[0] - 1
    assert found.busy().sum(dtype=float) == pytest.approx(1e6, rel=1e-5)


def test_the_longest_parts_and_slowest_calls_are_kept_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "EXACT", 10)
    durations = [float(number) for number in range(1, 2001)]
    random.Random(1).shuffle(durations)
    parts = [
        ran(1e4, "f", int(seconds), seconds=seconds, first=number)
        for number, seconds in enumerate(durations)
    ]
    found = taken(parts)
    assert [part.seconds for part in found.longest()] == sorted(durations)[:-11:-1]
    assert found.parts == 2000
    found.calls_finished(ran(1e4, "g", seconds=5.0, first=7, worker=3, attempt=2))
    found.add_up()
    assert found.slowest()[0] == Part(9895.0, 5.0, 3, 1, 7, 1, 2, 0, 0)
    assert len(found.slowest()) == timeline.SLOWEST


def test_failures_and_losses_are_kept() -> None:
    found = Timeline(3, 10.0)
    found.worker_joined(10.0, 1, "here")
    found.worker_lost(12.0, 1, "it died")
    found.calls_finished(ran(13.0, count=9, failures={0: ValueError(), 3: ValueError()}, again=[3]))
    found.tasks_failed(14.0, registered(), 9, 5, ValueError())
    found.add_up()
    assert found.hosts == {1: "here"}
    assert found.losses == [(2.0, 1, "it died")]
    assert [(part.count, part.failed, part.retried) for part in found.failures] == [(9, 1, 1)]
    assert [int(total.sum()) for total in found.ends()] == [13, 6]


def test_more_functions_than_can_be_told_apart_are_others() -> None:
    found = taken([ran(101.0, f"f{number}", seconds=0.5) for number in range(400)])
    assert len(found.names) == timeline.FUNCTIONS + 1
    assert found.names[-1] == timeline.OTHERS
    assert found.busy().sum(dtype=float) == 200.0


def test_a_rank_above_the_highest_is_in_the_last_lane() -> None:
    found = taken([ran(101.0, seconds=0.5, worker=99)])
    assert found.busy()[found.lane(99)].sum() == 0.5


def test_a_run_without_tasks_is_empty() -> None:
    found = taken([])
    assert not found.busy().any()
    assert found.longest() == []
