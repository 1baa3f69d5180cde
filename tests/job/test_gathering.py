"""Whatever happens on the way, `reduce`, `map_array` and `over` give what their serial definitions give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, current, task, testing
from taskfarm.protocol.reduction import Reduction

FAULTS: list[Callable[[int, int], testing.Fault]] = [
    testing.Dies,
    lambda rank, _: testing.Slow(rank),
]


class Run(NamedTuple):
    """What happens in a run: its workers, their faults, and the calls that fail at first."""

    workers: int
    seed: int
    faults: list[tuple[Callable[[int, int], testing.Fault], int, int]]
    failing: set[int]
    large: bool
    count: int
    size: int | None

    def farm(self) -> Farm:
        made = [make(rank, after) for make, rank, after in self.faults if rank <= self.workers]
        return testing.farm(self.workers, seed=self.seed, faults=made)


runs = given(
    run=st.builds(
        Run,
        workers=st.integers(1, 6),
        seed=st.integers(0, 10**6),
        faults=st.lists(
            st.tuples(st.sampled_from(FAULTS), st.integers(2, 6), st.integers(1, 40)), max_size=4
        ),
        failing=st.sets(st.integers(0, 300), max_size=5),
        large=st.booleans(),
        count=st.integers(0, 300),
        size=st.sampled_from([None, 1, 3, 64, 1000]),
    )
)


def bracket(left: str, right: str) -> str:
    return f"({left} {right})"


def tree(leaves: list[str]) -> str:
    reduction = Reduction(bracket)
    reduction.extend(0, leaves)
    return str(reduction.result())


@settings(deadline=None, max_examples=50)
@runs
def test_reduce(run: Run) -> None:
    failing, large, count, size = run[3:]

    @task(retries=1, chunksize=size)
    def leaf(n: int) -> str:
        if n in failing and current().attempt == 1:
            raise ValueError(n)
        return f"{n:0{20_000 if large else 1}}"

    width = 20_000 if large else 1
    with run.farm() as farm:
        found = farm.reduce(leaf, bracket, range(count), initial="start", chunksize=size)
    leaves = [f"{n:0{width}}" for n in range(count)]
    assert found == (f"(start {tree(leaves)})" if leaves else "start")


@settings(deadline=None, max_examples=50)
@runs
def test_map_array_and_over(run: Run) -> None:
    failing, large, count, size = run[3:]

    @task(retries=1)
    def triple(block: Any) -> Any:
        rows = current().rows
        if rows is not None and failing.intersection(rows) and current().attempt == 1:
            raise ValueError(rows)
        return block * 3

    @task(retries=1)
    def less(x: float, y: float) -> float:
        if x in failing and current().attempt == 1:
            raise ValueError(x)
        return x - y

    width = 5000 if large else 2
    array = np.arange(float(count * width)).reshape(count, width)
    out = np.zeros_like(array)
    with run.farm() as farm:
        assert farm.map_array(triple, array, out=out, rows=size) is out
        differences = np.zeros((count, 2))
        farm.over(less, np.arange(float(count))[:, None], [0.5, 7.0], out=differences)
    assert np.array_equal(out, array * 3)
    assert np.array_equal(differences, np.arange(float(count))[:, None] - [0.5, 7.0])
