"""MPI: the only importer of mpi4py.

A parcel is one control message: a byte that says whether the head travels inside, the number and the
sizes of its bulk frames, and the head. Bulk frames (large buffers, or a large head) follow on a
communicator of their own, in pieces below 1 GiB, so that no count passes MPI's 2^31 - 1 and each is
received straight into its final memory. Both communicators are duplicates: no message of the user's
can meet one of these.
"""

import struct
import time
from collections import deque
from typing import Any

import mpi4py
from mpi4py import MPI

from taskfarm.doorbell import MASTER_AWAKE, WORKER_AWAKE, Doorbell
from taskfarm.messages import IN_BAND, Parcel
from taskfarm.transport import Received, Transport

PIECE = 1 << 30
"""Bytes in one bulk MPI message, at most."""

CREDIT = 1 << 30
"""Bytes of bulk frames that a rank receives at once; a single larger parcel comes alone."""

_COUNT = struct.Struct("<?I")

_BARE = _COUNT.pack(True, 0)
"""What goes before the head of a parcel that has no bulk frames."""


class _Incoming:
    """A parcel of which bulk frames are still to come."""

    __slots__ = ("frames", "head", "inside", "requests", "sizes", "tag")

    def __init__(self, tag: int, inside: bool, head: bytearray, sizes: tuple[int, ...]) -> None:
        self.tag = tag
        self.inside = inside
        self.head = head
        self.sizes = sizes
        self.frames: list[Any] = []
        self.requests: list[MPI.Request] = []

    def parcel(self) -> Parcel:
        if self.inside:
            return Parcel(self.tag, self.head, self.frames)
        return Parcel(self.tag, self.frames[0], self.frames[1:])


class MpiTransport(Transport):
    """Parcels over duplicates of an MPI communicator.

    Parameters
    ----------
    comm : MPI.Intracomm
        Its rank 0 is the master. Collective over all its ranks.
    piece : int
        Bytes in one bulk message, at most.
    credit : int
        Bytes of bulk frames that are received at once.
    """

    def __init__(self, comm: MPI.Intracomm, piece: int = PIECE, credit: int = CREDIT) -> None:
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self.threads = MPI.Query_thread() >= MPI.THREAD_SERIALIZED
        self._world = comm
        self._control = comm.Dup()
        self._bulk = comm.Dup()
        self._piece = piece
        self._matched = bool(getattr(mpi4py.rc, "recv_mprobe", True))
        self._status = MPI.Status()
        self._outgoing: list[list[MPI.Request]] = []
        self._incoming: dict[int, deque[_Incoming]] = {}
        self._held: deque[tuple[int, _Incoming]] = deque()
        self._credit = credit
        self._receiving = 0
        self._bell = Doorbell()
        self._bells, self._rung = self._exchange_bells()
        # The other side may have begun to wait earlier than the last message tells.
        self._asleep = (MASTER_AWAKE if self.rank else WORKER_AWAKE) / 2
        self._heard = dict.fromkeys(self._bells, 0.0)

    def _exchange_bells(self) -> tuple[dict[int, str], bool]:
        """Doorbells of the ranks that this one talks to and can ring, and whether those are all."""
        mine = (self._bell.host, self._bell.address)
        everyone = self._control.gather(mine)
        masters = self._control.bcast(mine)
        others = dict(enumerate(everyone or [masters]))
        if everyone:
            del others[0]
        bells = {rank: bell for rank, (host, bell) in others.items() if bell and host == self._bell.host}
        return bells, len(bells) == len(others)

    def send(self, dest: int, parcel: Parcel) -> None:
        tag, head, buffers = parcel
        if not buffers and len(head) <= IN_BAND:
            requests = [self._control.Isend([_BARE + head, MPI.BYTE], dest, tag)]
        else:
            requests = self._send_bulk(dest, parcel)
        if not MPI.Request.Testall(requests):
            self._outgoing.append(requests)
        if dest in self._bells:
            now = time.perf_counter()
            if now - self._heard[dest] > self._asleep:
                self._bell.ring(self._bells[dest])
            self._heard[dest] = now

    def _send_bulk(self, dest: int, parcel: Parcel) -> list[MPI.Request]:
        frames = list(parcel.buffers)
        inside = len(parcel.head) <= IN_BAND
        head: bytes | bytearray = parcel.head
        if not inside:
            frames.insert(0, memoryview(head))
            head = b""
        sizes = struct.pack(f"<{len(frames)}Q", *(frame.nbytes for frame in frames))
        control = b"".join((_COUNT.pack(inside, len(frames)), sizes, head))
        requests = [self._control.Isend([control, MPI.BYTE], dest, parcel.tag)]
        for frame in frames:
            for piece in self._pieces(frame):
                requests.append(self._bulk.Isend([piece, MPI.BYTE], dest, 0))
        return requests

    def poll(self) -> Received | None:
        if self._outgoing:
            self._retire()
        if self._incoming:
            done = self._completed()
            if done:
                return done
        # The first look moves a message in that has just come, and only the second one sees it.
        message = self._probe() or self._probe()
        if message is None:
            return None
        source, tag, control = message
        self._heard[source] = time.perf_counter()
        inside, count = _COUNT.unpack_from(control)
        start = _COUNT.size + 8 * count
        if not count and source not in self._incoming:
            return Received(source, Parcel(tag, control[start:], ()))
        sizes = struct.unpack_from(f"<{count}Q", control, _COUNT.size)
        incoming = _Incoming(tag, inside, control[start:], sizes)
        self._incoming.setdefault(source, deque()).append(incoming)
        self._held.append((source, incoming))
        self._receive_held()
        return self._completed()

    def _receive_held(self) -> None:
        """Start to receive bulk frames, in order, while there is credit; till then their sender waits."""
        while self._held:
            source, incoming = self._held[0]
            size = sum(incoming.sizes)
            if self._receiving and self._receiving + size > self._credit:
                return
            self._held.popleft()
            self._receiving += size
            incoming.frames = [_memory(size) for size in incoming.sizes]
            for frame in incoming.frames:
                for piece in self._pieces(memoryview(frame)):
                    incoming.requests.append(self._bulk.Irecv([piece, MPI.BYTE], source, 0))

    def _probe(self) -> tuple[int, int, bytearray] | None:
        """Receive the next control message, if one is there."""
        status = self._status
        if self._matched:
            message = self._control.Improbe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
            if message is None:
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            message.Recv([control, MPI.BYTE])
        else:
            # Some fabrics do not do matched probes; only one thread at a time is here, so this is safe.
            if not self._control.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            self._control.Recv([control, MPI.BYTE], status.Get_source(), status.Get_tag())
        return status.Get_source(), status.Get_tag(), control

    def _completed(self) -> Received | None:
        """The first parcel of some rank whose bulk frames are all there: ranks keep their order."""
        for source, queue in self._incoming.items():
            first = queue[0]
            if len(first.frames) == len(first.sizes) and MPI.Request.Testall(first.requests):
                queue.popleft()
                if not queue:
                    del self._incoming[source]
                self._receiving -= sum(first.sizes)
                self._receive_held()
                return Received(source, first.parcel())
        return None

    def _pieces(self, frame: memoryview) -> list[memoryview]:
        return [frame[at : at + self._piece] for at in range(0, frame.nbytes, self._piece)]

    def _retire(self) -> None:
        """Let go of the parcels that have left; requests keep the buffers of the others alive."""
        self._outgoing = [rest for rest in self._outgoing if not MPI.Request.Testall(rest)]

    def unsent(self) -> int:
        return len(self._outgoing)

    @property
    def moving(self) -> bool:
        return bool(self._outgoing or self._incoming)

    def nap(self, seconds: float) -> bool:
        if not self._rung:
            return False
        self._bell.wait(seconds)
        return True

    def close(self) -> None:
        self._bell.close()
        self._control.Free()
        self._bulk.Free()

    def abort(self, code: int) -> None:
        self._world.Abort(code)


def _memory(size: int) -> Any:
    """Writable memory that is not touched before the message arrives, unlike a bytearray."""
    import numpy

    return numpy.empty(size, dtype=numpy.uint8)


def world() -> MPI.Intracomm:
    """The communicator of all ranks; the first call initialises MPI."""
    return MPI.COMM_WORLD


def ranks() -> int:
    """Ranks that this MPI knows of."""
    return world().Get_size()


def library() -> str:
    """Name and version of the MPI library that mpi4py loads, on one line."""
    return MPI.Get_library_version().replace("\n", " ").strip()


def thread_level() -> str:
    """Thread level that MPI granted, by its name in the standard."""
    names = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    level = {getattr(MPI, f"THREAD_{name}"): name for name in names}[MPI.Query_thread()]
    return f"MPI_THREAD_{level}"


def hosts() -> list[str] | None:
    """Host name of every rank, on rank 0; None elsewhere. Collective over all ranks."""
    return world().gather(MPI.Get_processor_name(), root=0)


def allows_threads() -> bool:
    """Whether any thread may call MPI, one at a time."""
    return MPI.Query_thread() >= MPI.THREAD_SERIALIZED
