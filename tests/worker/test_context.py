"""Random numbers of tasks: from the seed and the task alone."""

from collections.abc import Iterator

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taskfarm
from taskfarm import testing
from taskfarm.errors import UsageError
from taskfarm.job.farm import open_on


def draw(_: int) -> float:
    return float(taskfarm.rng().random())


def twice(_: int) -> tuple[float, float]:
    return float(taskfarm.rng().random()), float(taskfarm.rng().random())


def numbers(workers: int, seed: int, order: int, **options: int) -> list[float]:
    """What two maps that are consumed alternately and some submits draw."""
    master = testing.Master(testing.FakeTransport(workers, order), testing.VirtualClock())
    with open_on(taskfarm.Farm, master, seed=seed) as farm:
        first, between = farm.map(draw, range(300), **options), farm.submit(draw, 0)
        second = farm.map(draw, range(300), **options)
        rest = [farm.submit(draw, 0) for _ in range(20)]
        found = [value for pair in zip(first, second, strict=True) for value in pair]
        return [*found, between.result(), *(future.result() for future in rest)]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**130), st.integers(0, 99), st.integers(1, 40))
def test_the_same_for_any_number_of_workers_and_any_order(
    workers: int, seed: int, order: int, chunk: int
) -> None:
    found = numbers(workers, seed, order, chunksize=chunk)
    assert found == numbers(1, seed, 0)
    assert len(set(found)) == len(found) == 621


def test_another_seed_gives_others() -> None:
    assert not set(numbers(2, 1, 0)) & set(numbers(2, 2, 0))


def test_the_stream_is_numpys() -> None:
    with testing.farm(workers=2) as farm:
        seed = farm._master.seed
        drawn = [farm.submit(draw, 0).result(), *farm.map(draw, range(2))]
    expected = [
        numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=key)).random()
        for key in ((0, 0), (1, 0), (1, 1))
    ]
    assert drawn == expected


def test_a_task_has_one_generator() -> None:
    with testing.farm(workers=1) as farm:
        one, other = farm.submit(twice, 0).result()
    assert one != other


tries: Iterator[int] = iter(range(100))


def fails_once(_: int) -> float:
    value = draw(0)
    if next(tries) == 0:
        raise ValueError
    return value


def test_a_retry_draws_the_same() -> None:
    master = testing.Master(testing.FakeTransport(2), testing.VirtualClock())
    with open_on(taskfarm.Farm, master, seed=5) as farm:
        tried = farm.submit(taskfarm.task(retries=1)(fails_once), 0).result()
    with open_on(taskfarm.Farm, testing.Master(testing.FakeTransport(2)), seed=5) as farm:
        assert farm.submit(fails_once, 0).result() == tried


def test_only_tasks_have_one() -> None:
    with pytest.raises(UsageError, match=r"taskfarm\.rng\(\) works only inside a task"):
        taskfarm.rng()
