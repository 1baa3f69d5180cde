"""Arrays of a dtype and shape that was seen before arrive as pickle itself would send them."""

import pickle
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.protocol import array_pickles
from taskfarm.protocol.serialize import COPIED, collect_large, dumps, loads

WRAPPERS: list[Any] = [
    lambda array: array,
    lambda array: ((array,), {}),
    lambda array: ((array,), ()),
    lambda array: ((array,), {"keyword": array}),
    lambda array: ((array, 1), {}),
    lambda array: ([array], {}),
    lambda array: [array],
]
DTYPES = ["<f8", ">f8", "<f4", "i2", "bool", "c16", "S9", "U3", "M8[s]", "f8,i4"]


class Named(numpy.ndarray):
    """A subclass of arrays."""


def read_only(array: Any) -> Any:
    """The same array, which may not be written to."""
    array.flags.writeable = False
    return array


VARIANTS: list[Any] = [
    lambda array: array,
    lambda array: numpy.asfortranarray(array),
    lambda array: array[::2],
    lambda array: array[:0],
    lambda array: array.view(Named),
    lambda array: numpy.ma.masked_array(array, mask=False),
    read_only,
    lambda array: array.astype(numpy.dtype(array.dtype, metadata={"unit": "m"})),
]


def facts(value: Any) -> Any:
    """What a task can tell of a value."""
    if isinstance(value, tuple | list):
        return type(value), [facts(part) for part in value]
    if isinstance(value, dict):
        return {name: facts(part) for name, part in value.items()}
    if not isinstance(value, numpy.ndarray):
        return value
    about = value.dtype.str, value.dtype.descr, dict(value.dtype.metadata or {}), value.shape
    flags = value.flags.writeable, value.flags.c_contiguous, value.flags.f_contiguous
    return type(value), about, flags, value.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    wrap=st.sampled_from(WRAPPERS),
    vary=st.sampled_from(VARIANTS),
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 4),
    fill=st.integers(0, 100),
)
def test_arrays_arrive_as_pickle_sends_them_however_often(
    wrap: Any, vary: Any, dtype: str, rows: int, fill: int
) -> None:
    base = numpy.full((rows, 3 * COPIED), fill % 2 or fill).astype(dtype, copy=True)
    value = wrap(vary(base))
    for _ in range(4):
        buffers: list[Any] = []
        expected = pickle.dumps(value, protocol=5, buffer_callback=collect_large(buffers))
        blob = dumps(value)
        assert (bytes(blob.data), len(blob.buffers)) == (expected, len(buffers))
        received = [bytearray(pickle.PickleBuffer(buffer).raw()) for buffer in blob.buffers]
        arrived = loads(blob._replace(buffers=received))
        assert facts(arrived) == facts(pickle.loads(expected, buffers=map(bytearray, received)))


def test_each_array_has_its_own_memory_and_its_own_values() -> None:
    for shape in [(4096,), (64, 64), (4096,), (1, 4096), (4096,)]:
        for start in range(3):
            blob = dumps(((numpy.arange(start, start + 4096.0).reshape(shape),), {}))
            ((array,), keywords) = loads(blob._replace(buffers=[bytearray(b) for b in blob.buffers]))
            assert (array.shape, keywords) == (shape, {})
            assert (array.ravel() == numpy.arange(start, start + 4096.0)).all()
            array += 1
            keywords["changed"] = True


def test_a_remembered_array_takes_no_pickler(monkeypatch: pytest.MonkeyPatch) -> None:
    array = numpy.arange(5000.0)
    for value in (array, ((array,), {})):
        for _ in range(3):
            loads(dumps(value))
    monkeypatch.setattr(pickle, "dumps", None)
    monkeypatch.setattr(pickle, "loads", None)
    assert (loads(dumps(array + 1)) == array + 1).all()
    assert (loads(dumps(((array + 2,), {})))[0][0] == array + 2).all()


calls = []


def rebuild(array: Any) -> Any:
    """What unpickling of `Rebuilt` calls."""
    calls.append(array.nbytes)
    return array


class Rebuilt:
    """Is unpickled by a function that returns an array."""

    def __reduce__(self) -> Any:
        return rebuild, (numpy.zeros(5000),)


def test_what_is_unpickled_by_a_function_calls_it_each_time() -> None:
    calls.clear()
    for _ in range(5):
        loads(dumps(Rebuilt()))
    assert calls == [40_000] * 5


def test_arrays_of_ever_new_shapes_are_not_all_remembered() -> None:
    for size in range(5000, 5000 + 3 * array_pickles.MOST):
        assert loads(dumps(numpy.zeros(size))).size == size
    assert len(array_pickles._written) <= array_pickles.MOST
    assert len(array_pickles._read) <= array_pickles.MOST
