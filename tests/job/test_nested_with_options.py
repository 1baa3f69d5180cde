"""Tasks that submit tasks, in a farm whose other tasks have priorities and needs."""

import pytest

from taskfarm import task, testing
from taskfarm.errors import UsageError


@task
def leaf(x: int) -> int:
    return x


urgent_leaf = leaf.options(priority=5, expect="1s")
needing_leaf = leaf.options(needs="seat")


@task
def tree(depth: int) -> int:
    if not depth:
        return sum(urgent_leaf.map(range(3)))
    return sum(future.result() for future in [tree.submit(depth - 1), tree.submit(depth - 1)])


@task
def asks_too_much(x: int) -> int:
    return needing_leaf.submit(x).result()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_trees_end_beside_tasks_with_lanes(workers: int) -> None:
    with testing.farm(workers, seed=workers, resources=["seat=1/run"]) as farm:
        first = needing_leaf.map(range(30))
        trees = [tree.options(priority=one).submit(3) for one in (0, 3, -1)]
        plain = farm.map(leaf, range(50))
        assert [one.result() for one in trees] == [24] * 3
        assert (sum(first), sum(plain)) == (435, 1225)
        with pytest.raises(UsageError, match=r"a task cannot submit leaf, which needs seat=1"):
            asks_too_much.submit(1).result()
        farm._master.scheduler.check()
        assert not farm._master.scheduler.resources.claims


def test_tasks_with_needs_wait_for_results() -> None:
    with testing.farm(3, resources=["seat=1/run"]):
        first = needing_leaf.submit(3)
        second = needing_leaf.options(priority=2, order="longest").submit(first)
        assert leaf.options(priority=-1).submit(second).result() == 3
