"""How a parcel travels over MPI: one control message, and bulk frames beside it. No MPI here.

The control message is a byte that says whether the head travels inside, the number and the sizes of the
bulk frames, and the head. Frames are large buffers, or a large head. They follow in pieces below 1 GiB,
so that no count passes MPI's 2^31 - 1, and each is received straight into its final memory.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from taskfarm.protocol.messages import IN_BAND, Parcel

MAX_PIECE = 1 << 30
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


class Inbound:
    """Parcels of which bulk frames are still to come, received in order and only so many bytes at once.

    Parameters
    ----------
    credit : int
        Bytes of frames that are received at once; a single larger parcel comes alone.

    Attributes
    ----------
    failed : set of int
        Ranks of which frames could not be received; what came of them must not be used.
    """

    def __init__(self, credit: int) -> None:
        self.failed: set[int] = set()
        self._credit = credit
        self._queues: dict[int, deque[Incoming]] = {}
        self._held: deque[tuple[int, Incoming]] = deque()
        self._receiving = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def expects(self, source: int) -> bool:
        """Whether a parcel of this rank has still to be completed."""
        return source in self._queues

    def add(self, source: int, incoming: Incoming) -> None:
        """Take in a parcel; it is admitted when there is credit."""
        self._queues.setdefault(source, deque()).append(incoming)
        self._held.append((source, incoming))

    def admitted(self) -> Iterator[tuple[int, Incoming]]:
        """The parcels that may be received now, in order, with memory for their frames."""
        while self._held:
            source, incoming = self._held[0]
            size = sum(incoming.sizes)
            if self._receiving and self._receiving + size > self._credit:
                return
            self._held.popleft()
            self._receiving += size
            incoming.allocate()
            yield source, incoming

    def completed(self, test: Callable[[list[Any]], bool]) -> tuple[int, Parcel] | None:
        """The first parcel of some rank whose frames are all there: ranks keep their order."""
        for source, queue in self._queues.items():
            first = queue[0]
            if len(first.frames) < len(first.sizes):
                continue
            try:
                done = test(first.requests)
            except Exception:
                # Asked again, MPI would say that the request is complete.
                self.failed.add(source)
                raise
            if done:
                queue.popleft()
                if not queue:
                    del self._queues[source]
                self._receiving -= sum(first.sizes)
                return source, first.parcel()
        return None

    def drop(self, source: int) -> list[list[Any]]:
        """Drop the parcels of a rank; returns the requests that were on their way."""
        queue = self._queues.pop(source, deque())
        self._held = deque(held for held in self._held if held[0] != source)
        self._receiving -= sum(sum(incoming.sizes) for incoming in queue if incoming.frames)
        return [incoming.requests for incoming in queue]


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
