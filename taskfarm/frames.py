"""How a parcel travels over MPI: one control message, and bulk frames beside it. No MPI here.

The control message is a byte that says whether the head travels inside, the number and the sizes of the
bulk frames, and the head. Frames are large buffers, or a large head. They follow in pieces below 1 GiB,
so that no count passes MPI's 2^31 - 1, and each is received straight into its final memory.
"""

import struct
from typing import Any

from taskfarm.messages import IN_BAND, Parcel

PIECE = 1 << 30
"""Bytes in one bulk message, at most."""

_COUNT = struct.Struct("<?I")

BARE = _COUNT.pack(True, 0)
"""What goes before the head of a parcel that has no bulk frames."""


class Incoming:
    """A parcel of which bulk frames are still to come.

    Parameters
    ----------
    tag : int
        The tag of its control message.
    control : bytearray
        The control message.

    Attributes
    ----------
    sizes : tuple of int
        Bytes of each frame.
    frames : list
        The memory of the frames, once they are being received.
    requests : list
        What tells that they are there.
    """

    __slots__ = ("_head", "_inside", "_tag", "frames", "requests", "sizes")

    def __init__(self, tag: int, control: bytearray) -> None:
        self._tag = tag
        self._inside, count = _COUNT.unpack_from(control)
        self.sizes = struct.unpack_from(f"<{count}Q", control, _COUNT.size)
        self._head = control[_COUNT.size + 8 * count :]
        self.frames: list[Any] = []
        self.requests: list[Any] = []

    def allocate(self) -> None:
        """Get memory for the frames, not touched before they arrive, unlike a bytearray."""
        import numpy  # late: a farm of small messages never needs it

        self.frames = [numpy.empty(size, dtype=numpy.uint8) for size in self.sizes]

    def parcel(self) -> Parcel:
        """The parcel, once all frames are there."""
        if self._inside:
            return Parcel(self._tag, self._head, self.frames)
        return Parcel(self._tag, self.frames[0], self.frames[1:])


def bare(control: bytearray) -> bytearray | None:
    """The head of a parcel that has no bulk frames; None if it has some."""
    return control[len(BARE) :] if control.startswith(BARE) else None


def split(parcel: Parcel) -> tuple[bytes, list[memoryview]]:
    """The control message of a parcel, and its bulk frames."""
    frames = list(parcel.buffers)
    inside = len(parcel.head) <= IN_BAND
    head: bytes | bytearray = parcel.head
    if not inside:
        frames.insert(0, memoryview(head))
        head = b""
    sizes = struct.pack(f"<{len(frames)}Q", *(frame.nbytes for frame in frames))
    return b"".join((_COUNT.pack(inside, len(frames)), sizes, head)), frames


def pieces(frame: memoryview, size: int) -> list[memoryview]:
    """A frame in pieces of at most `size` bytes."""
    return [frame[at : at + size] for at in range(0, frame.nbytes, size)]
