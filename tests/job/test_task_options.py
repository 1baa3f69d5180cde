"""Retries, and what becomes of errors, over the fake transport and in a serial run."""

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, task, testing
from taskfarm.errors import CallNotPicklable, TaskKilledWorkers, WorkerLost

TRIED: dict[int, int] = {}


def flaky(x: int, fails: int) -> int:
    """Fail this many times, then succeed: all workers of the fake share this process."""
    TRIED[x] = TRIED.get(x, 0) + 1
    if TRIED[x] <= fails:
        raise ValueError(f"{x} for the {TRIED[x]}. time")
    return x


def inverse(x: int) -> float:
    return 1 / x


@pytest.fixture(autouse=True)
def fresh() -> None:
    TRIED.clear()


def test_retries_of_single_tasks(farm: Farm) -> None:
    tried = task(retries=2)(flaky)
    futures = [farm.submit(tried, x, x % 4) for x in range(12)]
    for x, future in enumerate(futures):
        if x % 4 == 3:
            assert str(future.exception()) == f"{x} for the 3. time"
        else:
            assert future.result() == x
    assert TRIED == {x: min(3, x % 4 + 1) for x in range(12)}


@given(
    fails=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    retries=st.integers(0, 3),
    chunk=st.sampled_from([None, 1, 7]),
    unordered=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_retries_in_a_map(fails: list[int], retries: int, chunk: int | None, unordered: bool) -> None:
    TRIED.clear()
    tried = task(retries=retries, on_error="return")(flaky)
    with testing.farm(workers=3, seed=len(fails)) as farm:
        results = farm.map(tried, range(len(fails)), fails, chunksize=chunk, unordered=unordered)
        got = list(results)
    texts = [x if n <= retries else f"{x} for the {retries + 1}. time" for x, n in enumerate(fails)]
    found = [value if isinstance(value, int) else str(value) for value in got]
    assert found == texts if not unordered else sorted(map(str, found)) == sorted(map(str, texts))


def test_on_error(farm: Farm) -> None:
    returned = list(farm.map(task(on_error="return")(inverse), [1, 0, 2]))
    assert [type(value) for value in returned] == [float, ZeroDivisionError, float]
    replaced = task(on_error=lambda error: str(error).upper())(inverse)
    assert list(farm.map(replaced, [1, 0])) == [1.0, "DIVISION BY ZERO"]
    assert farm.submit(replaced, 0).result() == "DIVISION BY ZERO"

    def worse(error: BaseException) -> None:
        raise KeyError("worse") from error

    assert isinstance(farm.submit(task(on_error=worse)(inverse), 0).exception(), KeyError)


def test_on_error_of_a_call_that_cannot_be_sent(farm: Farm) -> None:
    returned = task(on_error="return")(str)
    lock = threading.Lock()
    assert isinstance(farm.submit(returned, lock).result(), CallNotPicklable)
    one, error, two = farm.map(returned, [1, lock, 2])
    assert (one, two) == ("1", "2")
    assert isinstance(error, CallNotPicklable)


def test_defaults_apply_where_the_task_sets_no_option(farm: Farm) -> None:
    farm._functions.defaults = farm._functions.defaults.changed({"retries": 1})
    assert farm.submit(flaky, 1, 1).result() == 1
    assert isinstance(farm.submit(task(retries=0)(flaky), 2, 1).exception(), ValueError)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"retries": True}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "60"}, TypeError),
        ({"memory": "lots"}, ValueError),
        ({"memory": 0}, ValueError),
        ({"memory": [1]}, TypeError),
        ({"isolate": 1}, TypeError),
        ({"on_error": "ignore"}, ValueError),
        ({"key": "name"}, TypeError),
        ({"retry": 1}, TypeError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        task(**options)(flaky)


@pytest.mark.parametrize(
    ("text", "expected"), [("2GB", 2 * 10**9), ("1.5 MiB", 3 << 19), ("700", 700), ("3k", 3000)]
)
def test_sizes(text: str, expected: int) -> None:
    from taskfarm.schedule.policy import Policy

    assert Policy().changed({"memory": text}).memory == expected


def test_task_on_too_many_lost_workers_fails_alone() -> None:
    faults = [testing.Dies(worker, after=3) for worker in (1, 2, 3)]
    with testing.farm(workers=4, seed=0, faults=faults) as farm:
        got = list(farm.map(task(on_error="return")(abs), range(-200, 0)))
    assert len(got) == 200
    assert all(isinstance(value, int | TaskKilledWorkers) for value in got)


def test_last_worker_lost_fails_the_rest() -> None:
    faults = [testing.Dies(worker, after=4) for worker in (1, 2)]
    with testing.farm(workers=2, seed=0, faults=faults) as farm:
        with pytest.raises(WorkerLost, match="start the job again"):
            list(farm.map(abs, range(-5000, 0), chunksize=1))
