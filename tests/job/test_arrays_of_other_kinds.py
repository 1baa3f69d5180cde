"""`map_array` and `over` lose nothing of arrays that share memory, have masks, or hold objects."""

from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, share, task
from taskfarm.job.arrays import Blocks, Points


def negative(block: Any) -> Any:
    return -block


def fill_one_by_one(array: Any, out: Any) -> None:
    """Draw a block only when the result of the one before has been written."""
    blocks = Blocks([array], 0, 1, out)
    for rows, block in blocks:
        out[rows.start : rows.stop] = -block


def test_out_shares_memory_with_what_is_still_to_be_read() -> None:
    for there, here in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        array = np.arange(50.0)
        fill_one_by_one(array[here], array[there])
        assert np.array_equal(array[there], -np.arange(50.0)[here])
        array = np.arange(50.0)
        points = Points([array[here]], array[there])
        array[:] = 0
        assert list(points.columns()[0]) == list(np.arange(50.0)[here])


def test_out_is_what_is_read(farm: Farm) -> None:
    square = np.arange(900.0).reshape(30, 30)
    expected = -square.T
    fill_one_by_one(square.T, square)
    assert np.array_equal(square, expected)
    farm.map_array(negative, square, rows=1, out=square)
    assert np.array_equal(square, -expected)
    farm.over(negative, square, out=square.T)
    assert np.array_equal(square.T, expected)


def test_masks_stay(farm: Farm) -> None:
    masked = np.ma.masked_array(np.arange(24.0).reshape(8, 3), np.arange(24).reshape(8, 3) % 5 == 0)
    for axis in (0, 1):
        found = farm.map_array(negative, masked, rows=2, axis=axis)
        assert np.array_equal(found.mask, masked.mask)
        assert np.array_equal(found.compressed(), -masked.compressed())
    out = np.ma.zeros((8, 3))
    farm.map_array(negative, masked, rows=2, out=out)
    assert np.array_equal(out.mask, masked.mask)
    with pytest.raises(TypeError, match="masked elements"):
        farm.map_array(negative, masked, rows=2, out=np.zeros((8, 3)))
    with pytest.raises(ValueError, match="masked element"):
        farm.over(abs, masked)


def test_handles_are_their_arrays(farm: Farm) -> None:
    with share(np.arange(6.0)) as handle:
        assert farm.map_array(negative, handle, rows=2).sum() == -15
        assert farm.over(abs, handle).sum() == 15


@pytest.mark.parametrize("of_objects", [False, True])
def test_objects_are_what_was_returned(farm: Farm, of_objects: bool) -> None:
    values = ["a", 1, 1.5, (1, 2), None, [3]]
    out = np.zeros(60, object) if of_objects else None
    found = farm.over(lambda n: values[n % 6], range(60), out=out)
    assert found.tolist() == values * 10
    pairs = farm.over(lambda n: ("name", n), range(60))
    assert pairs.tolist() == [["name", n] for n in range(60)]


def test_out_of_any_layout(farm: Farm) -> None:
    points = np.arange(12).reshape(3, 4)
    for out in (np.zeros((3, 4), order="F"), np.zeros((6, 4))[::2], np.zeros((4, 3)).T):
        assert farm.over(float, points, out=out) is out
        assert np.array_equal(out, points)
    pairs = np.zeros((3, 4, 2), order="F")
    assert np.array_equal(farm.over(divmod, points, 5, out=pairs), np.stack(np.divmod(points, 5), axis=-1))
    for wrong in (np.zeros((4, 3)), np.zeros(12), np.zeros((3, 4), bool)):
        with pytest.raises((ValueError, TypeError), match="pass an out"):
            farm.over(float, points, out=wrong)


def test_nothing_is_cut_off(farm: Farm) -> None:
    with pytest.raises(TypeError, match="cannot be cast"):
        farm.map_array(lambda block: block / 3, np.arange(4.0), rows=2, out=np.zeros(4, "U5"))
    with pytest.raises(TypeError, match="too large"):
        farm.over(lambda n: 2**63 if n else 1, range(20))
    with pytest.raises(ValueError, match="came back with"):
        farm.over(lambda n: [0] * n, range(20))


def test_what_cannot_be_filled(farm: Farm) -> None:
    with pytest.raises(ValueError, match="read-only"):
        farm.map_array(negative, np.arange(4.0), out=np.broadcast_to(0.0, 4))
    with pytest.raises(ValueError, match="of a future"):
        farm.map_array(negative, farm.submit(abs, -3))
    with pytest.raises(ZeroDivisionError):
        farm.map_array(lambda block: 1 / 0, np.arange(4.0), rows=2)


def test_no_call_has_returned_an_array(farm: Farm) -> None:
    @task(on_error=lambda error: np.nan)
    def fails(block: Any) -> Any:
        raise ArithmeticError

    with pytest.raises(ValueError, match="pass out="):
        farm.map_array(fails, np.arange(4.0), rows=2)
    assert np.isnan(farm.map_array(fails, np.arange(4.0), rows=2, out=np.zeros(4))).all()
