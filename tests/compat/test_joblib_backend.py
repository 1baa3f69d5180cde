"""The backend of joblib, over a fake farm and in one process."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import taskfarm
from taskfarm import testing

joblib = pytest.importorskip("joblib", reason="no joblib: pip install 'mpi-taskfarm[clients]'")


@pytest.fixture(autouse=True)
def config() -> Iterator[None]:
    import taskfarm.joblib_backend  # noqa: F401

    with joblib.parallel_config(backend="taskfarm"):
        yield


@pytest.fixture
def farm() -> Iterator[taskfarm.Farm]:
    with testing.farm(workers=3, seed=1) as farm:
        yield farm


def rank() -> int:
    return taskfarm.current().rank


def inner(x: int) -> float:
    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(x) for _ in range(2)))


def test_results(farm: taskfarm.Farm) -> None:
    calls = (joblib.delayed(math.sqrt)(x) for x in range(200))
    assert joblib.Parallel()(calls) == [math.sqrt(x) for x in range(200)]
    assert set(joblib.Parallel()(joblib.delayed(rank)() for _ in range(50))) <= {1, 2, 3}


@pytest.mark.parametrize(("asked", "jobs"), [(None, 3), (-1, 3), (-2, 2), (-9, 1), (2, 2), (1, 1), (7, 7)])
def test_jobs(farm: taskfarm.Farm, asked: int | None, jobs: int) -> None:
    from taskfarm.joblib_backend import TaskfarmBackend

    assert TaskfarmBackend().effective_n_jobs(asked) == jobs


def test_wrong_number_of_jobs(farm: taskfarm.Farm) -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)([joblib.delayed(math.sqrt)(1)])


def test_an_error(farm: taskfarm.Farm) -> None:
    with pytest.raises(ValueError, match=r"domain|negative"):
        joblib.Parallel()(joblib.delayed(math.sqrt)(x) for x in range(50, -50, -1))
    assert joblib.Parallel()([joblib.delayed(math.sqrt)(4)]) == [2.0]


def test_joblib_in_a_task(farm: taskfarm.Farm) -> None:
    assert joblib.Parallel()(joblib.delayed(inner)(x) for x in (1, 4)) == [2.0, 4.0]


def test_in_one_process() -> None:
    assert joblib.Parallel()(joblib.delayed(math.sqrt)(x) for x in range(3000))[-1] == math.sqrt(2999)


def total(x: int, table: Any, scale: float = 1.0) -> tuple[float, bool]:
    return x + scale * float(table.sum()), bool(table.flags.writeable)


def test_large_arguments_of_many_calls_are_shared_once(
    farm: taskfarm.Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []

    def counting(value: Any) -> Any:
        handle = taskfarm.share(value)
        shared.append(id(handle))
        return handle

    monkeypatch.setattr("taskfarm.compat.repeated_arrays.share", counting)
    table, small = np.ones(300_000), np.ones(10)
    found = joblib.Parallel()(joblib.delayed(total)(x, table=table, scale=2.0) for x in range(40))
    assert [value for value, _ in found] == [x + 6e5 for x in range(40)]
    assert (found[0][1], found[-1][1], len(set(shared))) == (True, False, 1)
    del shared[:]
    found = joblib.Parallel()(joblib.delayed(total)(x, small) for x in range(40))
    found += joblib.Parallel(max_nbytes=None)(joblib.delayed(total)(x, table) for x in range(40))
    found += joblib.Parallel()(joblib.delayed(total)(x, np.ones(300_000)) for x in range(20))
    assert shared == []
    assert {writeable for _, writeable in found} == {True}


def test_arguments_are_not_data_of_a_function(
    farm: taskfarm.Farm, capfd: pytest.CaptureFixture[str]
) -> None:
    tables = [np.full(300_000, float(x)) for x in range(6)]
    found = joblib.Parallel()(joblib.delayed(total)(0, table) for table in tables)
    assert [value for value, _ in found] == [3e5 * x for x in range(6)]
    assert "travel" not in capfd.readouterr().err


def test_an_array_that_has_changed_or_has_gone_has_no_old_handle() -> None:
    from taskfarm.compat.repeated_arrays import RepeatedArrays

    arrays = RepeatedArrays(1000)
    table = np.zeros(200)
    assert arrays.replaced(table) is table
    first = arrays.replaced(table).handle
    assert arrays.replaced(table).handle is first
    table[0] = 1
    second = arrays.replaced(table).handle
    assert (first.value[0], second.value[0]) == (0, 1)
    del table
    other = np.ones(200)
    assert arrays.replaced(other) is other
    for value in (np.zeros(100), np.full(200, None), "text" * 1000):
        assert arrays.replaced(value) is value
        assert arrays.replaced(value) is value
