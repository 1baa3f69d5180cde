"""Calls and results become blobs and come back: plain values together, arrays beside their pickle."""

import traceback
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.protocol.messages import IN_BAND
from taskfarm.protocol.serialize import COPIED, dump_plain, dumps, load_plain, loads, nbytes, plain_nbytes

PLAIN = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.binary())


@given(st.lists(PLAIN, min_size=1))
def test_plain_values_share_a_pickle(values: list[Any]) -> None:
    assert plain_nbytes(values) is not None
    assert repr(load_plain(dump_plain(values))) == repr(values)


@pytest.mark.parametrize("value", [[1], (1,), {}, object(), np.zeros(2), print, type("Int", (int,), {})(1)])
def test_what_may_change_or_fail_is_not_plain(value: object) -> None:
    assert plain_nbytes([1, value]) is None


def test_numpy_scalars_are_plain() -> None:
    assert plain_nbytes([np.float64(1.5), np.int32(2), np.bool_(True)]) is not None


@pytest.mark.parametrize("size", [0, 1, IN_BAND - 1, IN_BAND, 10 * IN_BAND])
def test_large_arrays_travel_beside_the_pickle(size: int) -> None:
    array = np.arange(size, dtype=np.uint8)
    blob = dumps({"a": array})
    assert len(blob.buffers) == (size >= COPIED)
    assert nbytes(blob) >= size
    if blob.buffers:
        assert np.shares_memory(np.asarray(blob.buffers[0].raw()), array) == (size >= IN_BAND)
        assert len(blob.data) < 1000
    assert np.array_equal(loads(blob)["a"], array)


def test_array_that_is_not_contiguous_keeps_its_values() -> None:
    array = np.arange(200_000.0).reshape(400, 500)[::2, ::3]
    assert np.array_equal(loads(dumps(array)), array)


def test_code_sent_by_value_keeps_its_file() -> None:
    function = loads(dumps(lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError) as caught:
        function()
    assert traceback.extract_tb(caught.tb)[-1].filename == __file__
