"""Calls of a map run in blocks: what happens inside a block, for maps of one column and of several."""

import os
from pathlib import Path
from typing import Any

import pytest

from taskfarm import current, testing
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.messages import Define, Part
from taskfarm.protocol.outcomes import load_outcomes
from taskfarm.protocol.serialize import dumps
from taskfarm.worker.context import Place
from taskfarm.worker.runner import Runner

COUNT = 700


def whoever(x: int) -> tuple[int, int]:
    return x, current().task


def behave(x: int, step: int = 1) -> int:
    if x % 50 == 7:
        raise ValueError(x)
    if x % 50 == 9:
        raise StopIteration(x)
    if x % 50 == 11:
        os.chdir("/")
    return x * step


def run_part(columns: list[Any], folder: str) -> Any:
    """What a worker makes of all calls in one message, and the folder after them."""
    runner = Runner(Place(1, "node"), ())
    runner.prepare(Define(7, "behave", dumps(behave)))
    arguments = Arguments.from_columns(columns)
    runner._folder_of = lambda function: folder  # type: ignore[method-assign]
    parts = [Part(7, 100, 100, arguments.count, arguments.slice(0, arguments.count))]
    # Twice: after the first time, the function is known to change the folder.
    return [load_outcomes(one) for _ in range(2) for one in runner.run(parts)]


@pytest.mark.parametrize(
    "columns",
    [[list(range(COUNT))], [range(COUNT)], [tuple(range(COUNT)), (3,) * COUNT]],
    ids=["one column", "a range", "two columns"],
)
def test_failures_and_moves_inside_a_block_belong_to_their_own_calls(
    columns: list[Any], tmp_path: Path
) -> None:
    here = os.getcwd()
    step = 3 if len(columns) > 1 else 1
    for completed in run_part(columns, str(tmp_path)):
        failed = {x for x in range(COUNT) if x % 50 in (7, 9)}
        assert set(completed.failures) == failed
        assert completed.values == [None if x in failed else x * step for x in range(COUNT)]
        for x in (7, 9):
            cause = str(completed.failures[x].__cause__)
            assert f"task {100 + x} behave({x}{', 3' if step > 1 else ''}) on rank 1" in cause
        assert isinstance(completed.failures[7], ValueError)
    assert os.getcwd() == here


class Doubled:
    """A range that is not one: it must be drawn."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        return iter([0, 2, 4, 6, 8])


@pytest.mark.parametrize(
    "items",
    [
        range(1000),
        range(5, -995, -1),
        range(0),
        range(1),
        range(10**30, 10**30 + 900, 3),
        range(7),
        pytest.param(Doubled(), id="Doubled"),
    ],
    ids=str,
)
def test_a_map_over_a_range_is_one_over_its_items(items: Any) -> None:
    expected = [abs(x) for x in items]
    with testing.farm(workers=3, seed=5, faults=[testing.Dies(2, after=4)]) as farm:
        assert list(farm.map(abs, items)) == expected
        assert list(farm.map(abs, items, buffersize=3)) == expected
        assert list(farm.map(abs, items, chunksize=64)) == expected
        assert sorted(farm.map(abs, items, unordered=True)) == sorted(expected)
        pairs = list(farm.map(abs, items, with_arguments=True))
        assert pairs == [(x, abs(x)) for x in items]
        first = farm.submit(whoever, 0).result()[1]
        numbered = list(farm.map(whoever, items))
    assert numbered == [(x, first + 1 + at) for at, x in enumerate(items)]


def test_a_part_of_a_range_travels_as_a_range() -> None:
    arguments = Arguments.from_columns([range(10**6)])
    assert len(arguments.slice(1000, 8192)) < 100
