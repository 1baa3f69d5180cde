"""Kept results of tasks that submit tasks, or have priorities, needs, durations; workers die meanwhile."""

import gc
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, task, testing
from taskfarm.worker import kept_results


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "KEEP_BYTES", 1)


class Total:
    """A result that is no plain value, so that it is kept."""

    def __init__(self, value: int) -> None:
        self.value = value


class Sum:
    """A result with parts, which a task may return as futures."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    @property
    def value(self) -> int:
        """What it adds up to."""
        return sum(part.value for part in self.parts)


@task
def leaf(x: int, total: Total | None = None) -> Total:
    return Total(x + (total.value if total else 0))


@task
def waits(number: int, *parts: Total) -> Total:
    # The option is for what the job submits.
    below = [leaf.options(keep=True).submit(part.value) for part in parts]
    return Total(number + sum(future.result().value for future in below))


@task
def joins(number: int, *parts: Total) -> Any:
    total = Total(number + sum(part.value for part in parts))
    if number % 3 == 0:
        return total
    first = leaf.options(keep=True).submit(0)
    if number % 3 == 1:
        return leaf.options(keep=True).submit(total.value, first)
    return Sum(total, first, first)


@task
def plain(number: int, *parts: Total) -> Total:
    return Total(number + sum(part.value for part in parts))


KINDS = [
    one.options(keep=keep, **options)  # type: ignore[arg-type]  # a choice of options
    for one in (waits, joins, plain)
    for keep in (True, False)
    for options in (
        {},
        {"priority": 2.0},
        {"needs": "seat"},
        {"expect": lambda number, *parts: number + 1, "order": "longest"},
    )
    if one is plain or "needs" not in options
]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    tasks = draw(st.integers(1, 20))
    return [draw(st.lists(st.integers(0, one - 1), max_size=3)) if one else [] for one in range(tasks)]


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_graph_gives_what_a_loop_gives(
    graph: list[list[int]], workers: int, chance: random.Random
) -> None:
    kinds = [chance.choice(KINDS) for _ in graph]
    look = {number for number in range(len(graph)) if chance.random() < 0.2}
    expected: list[int] = []
    for number, on in enumerate(graph):
        expected.append(number + sum(expected[one] for one in on))
    faults = [testing.Dies(one, after=chance.randrange(3, 60)) for one in range(2, workers + 1)]
    with testing.farm(workers, seed=chance.randrange(99), faults=faults, resources=["seat=2/run"]) as farm:
        scheduler = farm._master.scheduler
        scheduler.attempts.max_kills = 99
        for _ in range(2):
            assert _run(farm, graph, kinds, look) == expected
        scheduler.check()
        assert not scheduler.expected
        assert not any(scheduler.resources.claims.values())
        assert not scheduler._locality
    gc.collect()
    farm._master.keeping.release_dropped()
    assert not farm._master.keeping._results


@pytest.mark.parametrize("workers", [1, 3])
def test_tasks_of_a_batch_may_keep_results_or_return_futures(workers: int) -> None:
    kind = joins.options(keep=True)
    with testing.farm(workers) as farm:
        for _ in range(4):
            futures = [farm.submit(kind, number) for number in range(40)]
            assert [farm.submit(plain, 1, one).result().value for one in futures] == list(range(1, 41))
            assert [one.result().value for one in futures] == list(range(40))
            # What is not known when a task ends cannot stay there.
            assert [one.kept is not None for one in futures] == [n % 3 == 0 for n in range(40)]


def _run(farm: Farm, graph: list[list[int]], kinds: list[Any], look: set[int]) -> list[int]:
    futures: list[Any] = []
    for number, on in enumerate(graph):
        futures.append(farm.submit(kinds[number], number, *(futures[one] for one in on)))
        if number in look:
            futures[-1].exception()
    return [future.result().value for future in futures]
