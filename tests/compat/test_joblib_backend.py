"""The backend of joblib, over a fake farm and in one process."""

import math
from collections.abc import Iterator

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
