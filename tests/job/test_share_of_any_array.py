"""`share` of arrays that numpy does not hand over as buffers: read-only and one for all, like any other."""

import gc
import pickle
from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, Shared, build, share
from taskfarm.errors import SharedDataError
from taskfarm.job.share import _dumps
from taskfarm.protocol.array_buffers import reduce_array
from taskfarm.protocol.serialize import loads


class Named(np.ndarray[Any, Any]):
    """A subclass with no pickle of its own."""


DATES = np.arange(6).astype("M8[s]")
MASKED = np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0], fill_value=-1.0)
ARRAYS = {
    "dates": DATES,
    "times in columns": np.asfortranarray(DATES.reshape(2, 3) - DATES[0]),
    "some dates": DATES[::2],
    "no dates": DATES[:0].reshape(0, 3),
    "one date": DATES[3:4].reshape(()),
    "records with dates": np.zeros(3, [("at", "M8[D]", (2,)), ("x", float)]),
    "masked": MASKED,
    "masked records": np.ma.masked_array(np.zeros(2, "i4,f8"), mask=[(0, 1), (1, 0)], hard_mask=True),
    "masked dates": np.ma.masked_array(DATES, mask=DATES > DATES[2]),
    "no mask": np.ma.masked_array([1, 2]),
    "matrix": np.eye(2).view(np.matrix),
    "record array": np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", int), ("b", float)]),
    "another subclass": np.arange(12.0).reshape(3, 4).view(Named)[:, ::2],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_memory_of_arrays_is_shared(name: str) -> None:
    array = ARRAYS[name]
    blob = _dumps([array], "", reduce_array)
    assert sum(memoryview(buffer).nbytes for buffer in blob.buffers) >= array.nbytes
    (found,) = loads(blob._replace(buffers=[bytes(pickle.PickleBuffer(b).raw()) for b in blob.buffers]))
    assert type(found) is type(array)
    assert found.dtype == array.dtype
    assert repr(found) == repr(array)
    assert not found.flags.writeable


def written(value: Any) -> tuple[Any, str]:
    array = value["array"].value if isinstance(value, dict) else value
    try:
        array[:] = array[::-1].copy()
    except ValueError as error:
        return array.tolist(), str(error)
    return array.tolist(), "written"


@pytest.mark.parametrize("array", [DATES, MASKED, np.array([1, "a", None], object)])
def test_tasks_do_not_write_for_others(farm: Farm, array: Any) -> None:
    handle = share(array)
    answers = [(array.tolist(), "assignment destination is read-only")]
    assert list(farm.map(written, [handle, {"array": handle}] * 4)) == answers * 8
    built = build(array.copy)
    assert list(farm.map(written, [built] * 4)) == answers * 4
    assert not handle.value.flags.writeable


def sums(handles: list[Shared[Any]]) -> list[float]:
    return [float(handle.value.sum()) for handle in handles]


def test_handles_in_handles(farm: Farm) -> None:
    inner = share(np.arange(4.0))
    assert share(inner) is inner
    outer = share([inner, share(np.arange(5.0))])
    gc.collect()
    assert farm.submit(sums, outer).result() == [6, 10]
    inner.free()
    with pytest.raises(SharedDataError, match="freed"):
        farm.submit(sums, outer).result()
    with pytest.raises(SharedDataError, match="freed"):
        share(inner)
