"""The wire format of a parcel over MPI: one control message, and separate bulk frames. No MPI here.

The control message contains a byte that is 1 if it also contains the head, the number and the sizes of the
bulk frames, and the head. The frames are the large buffers, and the head if it is large. They are sent in
pieces of 16 MiB. Each frame is received directly into its final memory. If there is no memory for a frame,
its pieces are received all the same, one over the other, and dropped.
"""

import functools
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from taskfarm.protocol.messages import IN_BAND, Parcel, TooLarge

MAX_PIECE = 1 << 24
"""Largest bulk message, in bytes: a receiver that has no memory for a frame needs this much to drop it."""

KEPT = 1 << 24
"""Bytes of memory that a rank keeps when it frees frames, about."""

_HEADER = struct.Struct("<?I")

Allocate: TypeAlias = Callable[[bytearray, Sequence[int]], list[Any]]
"""Returns the memory for the frames of a parcel, or `TooLarge`, from its head and their sizes in bytes; the
head is empty if it is a frame itself."""

NO_FRAMES = _HEADER.pack(True, 0)
"""What precedes the head in the control message of a parcel without bulk frames."""


class IncomingParcel:
    """A parcel whose bulk frames have not all arrived.

    Parameters
    ----------
    tag : int
        The tag of its control message.
    control : bytearray
        The control message.
    allocate : callable
        Returns the memory for the frames.

    Attributes
    ----------
    sizes : tuple of int
        Size of each frame, in bytes.
    frames : list
        Memory for the frames; empty before they are received. `TooLarge` stands for a frame for which
        there is no memory.
    requests : list
        The MPI requests that receive the frames.
    """

    __slots__ = ("_allocate", "_head", "_inside", "_tag", "frames", "requests", "sizes")

    def __init__(self, tag: int, control: bytearray, allocate: Allocate) -> None:
        self._tag = tag
        self._allocate = allocate
        self._inside, count = _HEADER.unpack_from(control)
        self.sizes = struct.unpack_from(f"<{count}Q", control, _HEADER.size)
        self._head = control[_HEADER.size + 8 * count :]
        self.frames: list[Any] = []
        self.requests: list[Any] = []

    def allocate(self) -> None:
        """Allocate memory for the frames; unlike a bytearray, it stays untouched until they arrive."""
        self.frames = self._allocate(self._head, self.sizes)

    def writes_into(self, memory: Any) -> bool:
        """Whether a frame is received into this array."""
        import numpy

        return any(numpy.may_share_memory(frame, memory) for frame in self.frames)

    def targets(self, piece: int, scratch: memoryview) -> Iterator[Any]:
        """Memory for each bulk message of at most `piece` bytes; `scratch` for what is dropped."""
        for size, frame in zip(self.sizes, self.frames, strict=True):
            if isinstance(frame, TooLarge):
                for start in range(0, size, piece):
                    yield scratch[: size - start]
            else:
                yield from pieces(memoryview(frame), piece)

    def parcel(self) -> Parcel:
        """The parcel, once all frames have arrived.

        Raises
        ------
        MemoryError
            There was no memory for the head, which says to which tasks the message belongs.
        """
        if self._inside:
            return Parcel(self._tag, self._head, self.frames)
        if isinstance(self.frames[0], TooLarge):
            raise MemoryError(f"no memory for a message of {self.sizes[0]} bytes")
        return Parcel(self._tag, self.frames[0], self.frames[1:])


class ReceiveQueue:
    """Parcels whose bulk frames have not all arrived; a credit limits how much is received at once.

    Parameters
    ----------
    credit : int
        Bytes of frames to receive at once. A larger parcel is received alone.

    Attributes
    ----------
    parcels : dict of int to deque of IncomingParcel
        The parcels, by the rank that sends them.
    failed : set of int
        Ranks whose frames could not be received; incomplete frames of these ranks must not be used.
    """

    def __init__(self, credit: int) -> None:
        self.parcels: dict[int, deque[IncomingParcel]] = {}
        self.failed: set[int] = set()
        self._credit = credit
        self._awaiting_credit: deque[tuple[int, IncomingParcel]] = deque()
        self._receiving = 0

    def add(self, source: int, incoming: IncomingParcel) -> None:
        """Queue a parcel; it is admitted when there is credit for it."""
        keep_freed_memory()
        self.parcels.setdefault(source, deque()).append(incoming)
        self._awaiting_credit.append((source, incoming))

    def admitted(self) -> Iterator[tuple[int, IncomingParcel]]:
        """The parcels that may be received now, in order, with memory for their frames."""
        while self._awaiting_credit:
            source, incoming = self._awaiting_credit[0]
            size = sum(incoming.sizes)
            if self._receiving and self._receiving + size > self._credit:
                return
            self._awaiting_credit.popleft()
            self._receiving += size
            incoming.allocate()
            yield source, incoming

    def completed(self, test: Callable[[list[Any]], bool]) -> tuple[int, Parcel] | None:
        """The next complete parcel, if there is one; those of one rank are completed in order."""
        for source, queue in self.parcels.items():
            first = queue[0]
            if len(first.frames) < len(first.sizes):
                continue
            try:
                done = test(first.requests)
            except Exception:
                # A second test would report the failed request as complete.
                self.failed.add(source)
                raise
            if done:
                queue.popleft()
                if not queue:
                    del self.parcels[source]
                self._receiving -= sum(first.sizes)
                return source, first.parcel()
        return None

    def receives_into(self, memory: Any) -> bool:
        """Whether a frame is received into this array."""
        return any(incoming.writes_into(memory) for queue in self.parcels.values() for incoming in queue)

    def drop(self, source: int) -> list[IncomingParcel]:
        """Drop the parcels of a rank; returns them, since MPI may still write into their frames."""
        queue = self.parcels.pop(source, deque())
        self._awaiting_credit = deque(entry for entry in self._awaiting_credit if entry[0] != source)
        self._receiving -= sum(sum(incoming.sizes) for incoming in queue if incoming.frames)
        return list(queue)


def allocate_each(head: bytearray, sizes: Sequence[int]) -> list[Any]:
    """New memory for each frame of a parcel."""
    return list(map(allocate, sizes))


def allocate(size: int) -> Any:
    """Memory for `size` bytes, or `TooLarge`; unlike a bytearray, it stays untouched until it is filled."""
    import numpy  # late: a farm of small messages never needs it

    try:
        return numpy.empty(size, dtype=numpy.uint8)
    except MemoryError:
        return TooLarge.of(size)


@functools.cache
def keep_freed_memory() -> None:
    """Keep some of the memory that frames have used, for the next ones: new pages would have to be cleared.

    When a large block is freed, glibc takes it that more of this size will follow, and returns less to the
    system: mallopt(3), M_MMAP_THRESHOLD. This block is not touched, and so costs nothing.
    """
    bytes(KEPT // 2)


def split(parcel: Parcel) -> tuple[bytes, list[memoryview]]:
    """The control message of a parcel, and its bulk frames."""
    frames = list(parcel.buffers)
    inside = len(parcel.head) <= IN_BAND
    head: bytes | bytearray = parcel.head
    if not inside:
        frames.insert(0, memoryview(head))
        head = b""
    sizes = struct.pack(f"<{len(frames)}Q", *(frame.nbytes for frame in frames))
    return b"".join((_HEADER.pack(inside, len(frames)), sizes, head)), frames


def pieces(frame: memoryview, size: int) -> list[memoryview]:
    """A frame, split into pieces of at most `size` bytes."""
    if frame.nbytes <= size:
        return [frame]
    return [frame[start : start + size] for start in range(0, frame.nbytes, size)]
