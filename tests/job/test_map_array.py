"""`map_array` and `over` are loops over blocks and elements that fill an array."""

import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, current, rng, task, testing

IMAGE = np.random.default_rng(1).random((300, 41))


def doubled(block: Any, plus: float = 0.0) -> Any:
    assert block.flags.c_contiguous
    assert block.flags.writeable
    block *= 2
    return block + plus


def rows_of_task(block: Any) -> Any:
    rows = current().rows
    assert rows is not None
    assert len(rows) == len(block)
    return np.arange(rows.start, rows.stop)


@task
def decay(rate: float, time: float) -> float:
    return math.exp(-rate * time)


@pytest.mark.parametrize("rows", [None, 1, 7, 300, 1000])
def test_blocks_of_rows(farm: Farm, rows: int | None) -> None:
    before = IMAGE.copy()
    assert np.array_equal(farm.map_array(doubled, IMAGE, rows=rows), 2 * IMAGE)
    assert np.array_equal(IMAGE, before)
    assert np.array_equal(farm.map_array(rows_of_task, IMAGE, rows=rows), np.arange(300))


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize(
    "make", [np.asarray, np.asfortranarray, lambda a: a[::-1, ::2], np.matrix.transpose]
)
def test_any_axis_and_layout(farm: Farm, axis: int, make: Callable[[Any], Any]) -> None:
    array = make(IMAGE)
    assert np.array_equal(farm.map_array(doubled, array, axis=axis, rows=10, plus=1.0), 2 * array + 1)


def test_several_arrays_and_other_shapes(farm: Farm) -> None:
    column = IMAGE[:, :1].copy()
    assert np.array_equal(farm.map_array(np.subtract, IMAGE, column, rows=9), IMAGE - column)
    assert np.array_equal(farm.map_array(lambda block: block.sum(axis=1), IMAGE, rows=9), IMAGE.sum(axis=1))
    stacked = farm.map_array(lambda block: np.stack([block, block], axis=2), IMAGE, rows=50)
    assert stacked.shape == (300, 41, 2)
    assert farm.map_array(lambda block: [str(x) for x in block], [1, 2, 3]).tolist() == ["1", "2", "3"]


def test_arrays_that_must_not_change(farm: Farm) -> None:
    for array in (np.broadcast_to(np.arange(5.0), (20, 5)), IMAGE.astype(object)):
        assert np.array_equal(farm.map_array(doubled, array, rows=3), 2 * array)


def test_results_go_where_the_caller_says(farm: Farm, tmp_path: Path) -> None:
    out = np.zeros(IMAGE.shape, np.float32)
    assert farm.map_array(doubled, IMAGE, out=out, rows=64) is out
    assert np.array_equal(out, (2 * IMAGE).astype(np.float32))
    file = np.memmap(tmp_path / "out", np.float64, "w+", shape=IMAGE.shape)
    farm.map_array(doubled, IMAGE, out=file, rows=64)
    assert np.array_equal(np.fromfile(tmp_path / "out").reshape(IMAGE.shape), 2 * IMAGE)
    again = IMAGE.copy()
    farm.map_array(doubled, again, out=again, rows=10)
    assert np.array_equal(again, 2 * IMAGE)


class Assigned:
    """Where blocks can be assigned, and nothing else."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, int], Any] = {}

    def __setitem__(self, index: tuple[slice], block: Any) -> None:
        self.blocks[index[0].start, index[0].stop] = block


def test_anything_that_can_be_assigned_to(farm: Farm) -> None:
    out = Assigned()
    assert farm.map_array(doubled, IMAGE, out=out, rows=200) is out
    assert sorted(out.blocks) == [(0, 200), (200, 300)]
    assert np.array_equal(out.blocks[200, 300], 2 * IMAGE[200:])


def test_blocks_depend_on_bytes_alone() -> None:
    found = []
    for workers in (1, 2, 7):
        with testing.farm(workers, seed=workers), Farm(seed=5) as farm:
            array = np.zeros((5000, 64))
            found.append(farm.map_array(lambda block: block + rng().random(block.shape), array))
            starts = farm.map_array(lambda block: np.full(len(block), current().rows.start), array)  # type: ignore[union-attr]
            assert set(np.diff(np.unique(starts))) == {(1 << 18) // (2 * 64 * 8)}
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("returned", "words"), [(lambda block: block[1:], "rows 0:100 .* 100 rows"), (len, "rows 0:100")]
)
def test_a_block_of_wrong_length(farm: Farm, returned: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        farm.map_array(returned, IMAGE, rows=100)


def test_blocks_that_do_not_fit(farm: Farm) -> None:
    with pytest.raises(TypeError, match="same_kind"):
        farm.map_array(doubled, IMAGE, out=np.zeros(IMAGE.shape, int))
    with pytest.raises(ValueError, match="shape"):
        farm.map_array(lambda block: block[:, : 1 + current().rows.start], IMAGE, rows=150)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="cut alike"):
        farm.map_array(np.add, IMAGE, IMAGE[1:])
    with pytest.raises(ValueError, match="out has 299 rows"):
        farm.map_array(doubled, IMAGE, out=np.zeros((299, 41)))
    with pytest.raises(ValueError, match="axis 2"):
        farm.map_array(doubled, IMAGE, axis=2)
    with pytest.raises(ValueError, match="axis 0"):
        farm.map_array(doubled, 3.0)
    with pytest.raises(ValueError, match="rows"):
        farm.map_array(doubled, IMAGE, rows=0)
    with pytest.raises(TypeError, match="plsu"):
        farm.map_array(doubled, IMAGE, plsu=1)


def test_no_rows(farm: Farm) -> None:
    empty = np.zeros((0, 3))
    assert farm.map_array(doubled, empty, out=empty) is empty
    with pytest.raises(ValueError, match="pass out="):
        farm.map_array(doubled, empty)


def test_failures(farm: Farm) -> None:
    def fails(block: Any) -> Any:
        if current().rows.start in (60, 200):  # type: ignore[union-attr]
            raise LookupError(current().rows)
        return block

    with pytest.raises(LookupError, match="60, 80"):
        farm.map_array(fails, IMAGE, rows=20)
    filled = farm.map_array(task(on_error=lambda error: np.nan)(fails), IMAGE, rows=20)
    assert np.isnan(filled[60:80]).all()
    assert np.isnan(filled).sum() == 40 * 41
    with pytest.raises(LookupError):
        farm.map_array(task(on_error="return")(fails), IMAGE, rows=20)
    out = np.zeros(IMAGE.shape)
    first_fails = task(on_error=lambda error: -1.0)(
        lambda block: 1 / 0 if current().rows.start == 0 else block
    )  # type: ignore[union-attr]
    assert farm.map_array(first_fails, IMAGE, rows=100)[0, 0] == -1
    assert farm.map_array(first_fails, IMAGE, rows=100, out=out)[0, 0] == -1


def test_in_child_processes() -> None:
    with testing.farm(2) as farm:
        assert np.array_equal(farm.map_array(task(isolate=True)(doubled), IMAGE, rows=100), 2 * IMAGE)


def test_no_rows_outside_of_map_array(farm: Farm) -> None:
    assert farm.map_array(doubled, IMAGE).shape == IMAGE.shape
    assert farm.submit(lambda: current().rows).result() is None


def test_over_all_pairs(farm: Farm) -> None:
    rates, times = np.linspace(0.1, 2, 30), np.arange(25.0)
    with farm:
        found = decay.over(rates[:, None], times)
    assert found.shape == (30, 25)
    assert found.tolist() == [[math.exp(-rate * time) for time in times] for rate in rates]


def test_over_gives_results_of_any_shape(farm: Farm) -> None:
    pairs = farm.over(divmod, np.arange(20)[:, None], [3, 7])
    assert pairs.shape == (20, 2, 2)
    assert pairs.dtype == np.arange(1).dtype
    assert pairs[19, 1].tolist() == [2, 5]
    assert farm.over(abs, -3).shape == ()
    assert farm.over(decay, [0.5, 1.0], time=2.0).tolist() == [math.exp(-1), math.exp(-2)]
    out = np.zeros((20, 5))
    assert farm.over(operator.mul, np.arange(20)[:, None], range(5), out=out) is out
    assert out[19].tolist() == [0, 19, 38, 57, 76]


def test_over_refuses_to_lose_digits(farm: Farm) -> None:
    with pytest.raises(TypeError, match="out="):
        farm.over(lambda n: 0 if n < 100 else 0.5, range(1000))
    assert farm.over(lambda n: 0 if n < 100 else 0.5, range(1000), out=np.zeros(1000)).sum() == 450
    texts = farm.over(lambda n: "a" * (1 + n // 100), range(1000))
    assert [len(text) for text in texts] == [1 + n // 100 for n in range(1000)]
    with pytest.raises(TypeError, match="out="):
        farm.map_array(lambda block: [str(n) for n in block], range(8, 12), rows=1)
    with pytest.raises(ValueError, match="pass out="):
        farm.over(abs, [])
    with pytest.raises(TypeError, match="at least one"):
        farm.over(abs)


DRAWN: list[int] = []


class Wide:
    """4,000 rows of 400 kB that nobody holds in memory."""

    shape, dtype = (4000, 50_000), np.dtype(float)

    def __getitem__(self, index: tuple[slice]) -> Any:
        DRAWN.append(index[0].start)
        return np.zeros((1, 50_000))


def test_results_that_wait_for_the_first_block_are_bounded() -> None:
    counts = []
    for rank in (1, 2):
        DRAWN.clear()
        silent = testing.Silent(rank)
        silent.silent = True
        with testing.farm(2, faults=[silent]) as farm:
            with pytest.raises(TimeoutError):
                farm.map_array(lambda block: block[:, :1], Wide(), rows=1, timeout=10)
            silent.silent = False
        counts.append(len(DRAWN))
    assert 100 < min(counts) < 1000
    assert max(counts) == 4000
