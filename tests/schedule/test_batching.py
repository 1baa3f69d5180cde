"""How many tasks travel together."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.schedule.batching import (
    BATCH_SECONDS,
    BATCH_SECONDS_PER_WORKER,
    GROWTH,
    MAX_AHEAD,
    MAX_AHEAD_PER_WORKER,
    MAX_BATCH_BYTES,
    MAX_BATCH_TASKS,
    MIN_BATCH_SECONDS,
    Estimate,
    aligned_size,
    batch_seconds,
)

MEASUREMENTS = st.lists(
    st.tuples(st.integers(1, 5000), st.floats(1e-9, 1e4), st.integers(0, 10**9)), min_size=1, max_size=20
)


def learnt(*measurements: tuple[int, float, int]) -> Estimate:
    estimate = Estimate()
    for count, seconds, nbytes in measurements:
        estimate.update(count, seconds, nbytes)
    return estimate


@given(st.lists(st.integers(1, 8192), min_size=1, max_size=30), st.integers(0, 1 << 20))
def test_a_batch_of_a_reduction_ends_at_a_round_place(sizes: list[int], first: int) -> None:
    for size in sizes:
        count = aligned_size(first, size)
        assert 1 <= count <= size
        first += count
        if first >= 2 * size > 64:
            # At least a quarter of its size, and with few of its last bits set.
            again = aligned_size(first, size)
            assert again > size // 2 - 1
            first += again
            assert first % 2 ** (size.bit_length() // 2) == 0


def test_unknown_tasks_travel_alone() -> None:
    assert Estimate().target_size(2) == 1


def test_long_tasks_travel_alone() -> None:
    assert learnt((1, 1.0, 8)).target_size(2) == 1


def test_batches_of_short_tasks_grow_step_by_step() -> None:
    estimate = Estimate()
    sizes = []
    for _ in range(12):
        sizes.append(estimate.target_size(2))
        estimate.update(sizes[-1], 1e-7 * sizes[-1], 8 * sizes[-1])
    assert all(after <= GROWTH * before for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == MAX_BATCH_TASKS


def test_large_results_travel_in_small_batches() -> None:
    assert learnt((8, 1e-6, 8 * MAX_BATCH_BYTES)).target_size(2) == 1


def test_a_jump_is_followed() -> None:
    estimate = learnt(*[(4000, 1e-3, 0)] * 5)
    assert estimate.target_size(2) > 4000
    estimate.update(8000, 80.0, 0)
    assert estimate.target_size(2) <= 1 + BATCH_SECONDS / 3.6e-3


def test_batches_hold_more_the_more_workers_one_master_serves() -> None:
    estimate = learnt(*[(1000, 1.0, 0)] * 5)
    assert estimate.target_size(2) == pytest.approx(BATCH_SECONDS / 1e-3, abs=1)
    assert estimate.target_size(10_000) > 50 * estimate.target_size(2)


def test_one_odd_task_changes_little() -> None:
    estimate = learnt(*[(4, 4e-3, 0)] * 50)
    estimate.update(4, 23e-3, 0)
    assert estimate.target_size(2) > 1


@given(MEASUREMENTS, st.integers(0, 10**8), st.integers(1, 10**5))
def test_sizes_are_sane(measurements: list[tuple[int, float, int]], queued: int, workers: int) -> None:
    estimate = learnt(*measurements)
    goal, size = estimate.target_size(workers), estimate.batch_size(queued, workers)
    assert 1 <= size <= goal <= MAX_BATCH_TASKS
    assert size == 1 or size * estimate.seconds <= batch_seconds(workers) * 1.001
    small = (
        size * estimate.seconds <= max(MIN_BATCH_SECONDS, workers * BATCH_SECONDS_PER_WORKER / 3) * 1.001
    )
    assert size == 1 or small or size * workers * 2 <= queued
    assert 1 <= estimate.window(workers) <= max(MAX_AHEAD, MAX_AHEAD_PER_WORKER * workers)
    assert estimate.ahead(workers) >= 2 * workers
