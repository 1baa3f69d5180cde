"""A message of which the receiver had no memory for a buffer fails the calls that need it."""

import numpy as np
import pytest

from taskfarm.protocol.messages import (
    Blob,
    Define,
    Parcel,
    Part,
    TooLarge,
    Work,
    decode,
    encode,
)
from taskfarm.protocol.serialize import dumps, loads


def lacking(parcel: Parcel, index: int) -> Parcel:
    """The parcel as it arrives where there is no memory for one of its buffers."""
    buffers = list(parcel.buffers)
    buffers[index] = TooLarge.of(memoryview(buffers[index]).nbytes)
    return parcel._replace(buffers=buffers)


def fails(blob: Blob) -> str:
    try:
        loads(blob)
    except MemoryError as error:
        return str(error)
    raise AssertionError("a placeholder was loaded")


@pytest.mark.parametrize("writable", [True, False])
def test_only_the_call_that_needs_the_buffer_fails(writable: bool) -> None:
    arrays = [np.full(100_000, value, dtype="u1") for value in range(3)]
    for array in arrays:
        array.flags.writeable = writable
    blobs = [dumps(((array, "other"), {})) for array in arrays]
    received = decode(lacking(encode(Work([Part(1, 2, 3, 3, blobs)])), 1))
    assert isinstance(received, Work)
    (part,) = received.parts
    assert part[:4] == (1, 2, 3, 3)
    assert "no memory for its 0.1" in fails(part.calls[1])
    for index in (0, 2):
        (array, other), _ = loads(part.calls[index])
        assert (array.sum(), other) == (100_000 * index, "other")
    again = decode(encode(received))
    assert isinstance(again, Work)
    assert "no memory for its 0.1" in fails(again.parts[0].calls[1])


@pytest.mark.parametrize("value", [bytes(100_000), bytearray(100_000), "x" * 100_000])
def test_no_placeholder_is_taken_for_a_value(value: object) -> None:
    received = decode(lacking(encode(Define(1, "f", dumps(value), [])), 0))
    assert isinstance(received, Define)
    assert "no memory for its 0.1" in fails(received.blob)
