"""Handles of shared data in pickles, and the block of memory in which the data lies."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import taskfarm
from taskfarm.protocol import layout, shared
from taskfarm.protocol.messages import Blob
from taskfarm.protocol.serialize import dumps, loads


def block_of(blob: Blob) -> memoryview:
    block = memoryview(bytearray(layout.block_size(blob)))
    for start, piece in layout.pieces(blob):
        block[start : start + piece.nbytes] = piece
    return block


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=5))
def test_a_block_gives_back_the_pickle_and_its_buffers(data: bytes, buffers: list[bytes]) -> None:
    blob = Blob(data, buffers)
    block = block_of(blob)
    found = layout.read(block.toreadonly())
    assert bytes(found.data) == data
    assert list(map(bytes, found.buffers)) == buffers
    assert layout.holds(block, blob)
    assert not layout.holds(block, Blob(data + b"!", buffers))


def test_buffers_are_aligned_and_equal_content_is_recognized() -> None:
    array = np.arange(300_000)
    blob = dumps([array, array[:7].copy()], in_band=0)
    block = block_of(blob)
    found = loads(layout.read(block))
    assert [part.ctypes.data % 16 for part in found] == [0, 0]
    np.testing.assert_array_equal(found[0], array)
    array[-1] = 0
    assert not layout.holds(block, blob)


def test_a_handle_pickles_small_and_is_found_in_a_pickle() -> None:
    handle = taskfarm.share(np.zeros(100_000))
    data = pickle.dumps({"table": [handle]})
    assert len(data) < shared.HANDLE_BYTES + 50
    assert pickle.loads(data)["table"][0] is handle
    assert shared.tokens_in(Blob(b"x" + data, [])) == {handle.token}
    handle.free()
    assert shared.tokens_in(Blob(data, [])) == set()
