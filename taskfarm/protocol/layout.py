"""A pickle and its buffers as one block of memory, from which they are unpickled without a copy.

The block consists of a header (number of buffers, size of the pickle), the sizes of the buffers, the pickle
and the buffers. Each buffer begins at a multiple of 64 bytes, as numpy's own arrays do.
"""

import pickle
import struct
from collections.abc import Iterator

from taskfarm.protocol.messages import Blob

ALIGNMENT = 64
"""Each buffer begins at a multiple of this, in bytes."""

STEP = 1 << 20
"""Most bytes of a piece, and bytes to compare at once."""

_HEADER = struct.Struct("<QQ")


def _parts(blob: Blob) -> list[memoryview]:
    return [pickle.PickleBuffer(part).raw() for part in (blob.data, *blob.buffers)]


def _starts(sizes: list[int]) -> list[int]:
    """Where each part begins, the pickle first, and where the block ends."""
    at = _HEADER.size + 8 * (len(sizes) - 1)
    starts = []
    for size in sizes:
        at += -at % ALIGNMENT
        starts.append(at)
        at += size
    return [*starts, at]


def block_size(blob: Blob) -> int:
    """Size of the block of a blob, in bytes."""
    return _starts([part.nbytes for part in _parts(blob)])[-1]


def pieces(blob: Blob) -> Iterator[tuple[int, memoryview]]:
    """What to write to a block of `block_size` bytes: offset and content of each piece."""
    parts = _parts(blob)
    sizes = [part.nbytes for part in parts]
    head = _HEADER.pack(len(sizes) - 1, sizes[0]) + struct.pack(f"<{len(sizes) - 1}Q", *sizes[1:])
    yield 0, memoryview(head)
    for start, part in zip(_starts(sizes), parts, strict=False):
        for done in range(0, part.nbytes, STEP):
            yield start + done, part[done : done + STEP]


def read(block: memoryview, needs: tuple[int, ...] = ()) -> Blob:
    """The blob in a block; its buffers are views of the block, and as writable as that."""
    data, *buffers = _views(block)
    return Blob(data, buffers, needs)


def holds(block: memoryview, blob: Blob) -> bool:
    """Whether a block was written from an equal blob."""
    views, parts = list(_views(block)), _parts(blob)
    return [view.nbytes for view in views] == [part.nbytes for part in parts] and all(
        bytes(view[done : done + STEP]) == bytes(part[done : done + STEP])
        for view, part in zip(views, parts, strict=True)
        for done in range(0, view.nbytes, STEP)
    )


def _views(block: memoryview) -> Iterator[memoryview]:
    count, length = _HEADER.unpack_from(block)
    sizes = [length, *struct.unpack_from(f"<{count}Q", block, _HEADER.size)]
    for start, size in zip(_starts(sizes), sizes, strict=False):
        yield block[start : start + size]
