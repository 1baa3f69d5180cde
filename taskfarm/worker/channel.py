"""Parcels between a worker and its child process: a socketpair, and a file in memory each way.

A frame on the socket is a header (tag, number of buffers, bytes of the head, where the buffers lie),
the sizes of the buffers, and the head. The buffers themselves go through the sender's file, whose pages
are used again and again: fresh ones would cost ten times as much. A sender puts them one after the other,
and begins again at 0 when it has received something, for each end answers only after it has taken in all
that came before. The receiver copies them into memory of its own.

Reads and writes go through the kernel, not through mapped memory: what the other end does to a file can
then cost an error, never a SIGBUS.
"""

import contextlib
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from taskfarm.protocol.messages import Parcel

MAGIC = b"farm"
"""Begins each frame, so that what a task writes to the socket is not taken for one."""

KEPT = 1 << 27
"""Bytes that a file may keep between messages."""

CHUNK = 1 << 16
"""Bytes to read from the socket at once."""

PIECE = 1 << 30
"""Bytes to read from or write to a file at once, at most: the kernel does no more than 2 GiB."""

CONNECTION_LOST = 74
"""Exit code of a child that cannot reach its worker any more: EX_IOERR."""

_HEADER = struct.Struct("<4sBxxxIIQ")
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class ChannelBroken(Exception):
    """The other end has gone, or what comes from it makes no sense."""


def memory_file() -> int:
    """The descriptor of a new empty file that has no name; in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("taskfarm", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _File:
    """One end's view of a file in memory.

    Parameters
    ----------
    descriptor : int
        Belongs to the view from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._identity = os.fstat(descriptor)
        self._at = self._size = 0

    def _check(self) -> None:
        """A task may have closed the descriptor, and got its number again for a file of its own."""
        try:
            same = os.path.samestat(os.fstat(self.descriptor), self._identity)
        except OSError:
            same = False
        if not same:
            raise ChannelBroken("a file descriptor of the connection was closed")

    def restart(self) -> None:
        """Begin again at 0: all that was written has been read."""
        self._at = 0
        if self._size > KEPT:
            self._check()
            os.ftruncate(self.descriptor, KEPT)
            self._size = KEPT

    def write(self, buffers: Sequence[memoryview]) -> int:
        """Append buffers; returns where the first one lies."""
        self._check()
        start = self._at
        end = start + sum(buffer.nbytes for buffer in buffers)
        if end > self._size:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.descriptor, self._size, end - self._size)
            self._size = end
        for buffer in buffers:
            while buffer:
                written = os.pwrite(self.descriptor, buffer[:PIECE], self._at)
                buffer = buffer[written:]
                self._at += written
        return start

    def read(self, start: int, size: int) -> Any:
        """Bytes from `start` on, in memory of their own."""
        self._check()
        if start + size > os.fstat(self.descriptor).st_size:
            raise ChannelBroken("a message tells of more data than there are")
        import numpy  # late: a child of small messages never needs it

        array: Any = numpy.empty(size, dtype=numpy.uint8)
        rest = memoryview(array)
        while rest:
            count = os.preadv(self.descriptor, [rest[:PIECE]], start)
            if not count:
                raise ChannelBroken("the data of a message were cut off")
            rest = rest[count:]
            start += count
        return array

    def close(self) -> None:
        """Give the descriptor back, if it is still this file's."""
        with contextlib.suppress(ChannelBroken):
            self._check()
            os.close(self.descriptor)


class Channel:
    """One end of the connection between a worker and its child.

    Parameters
    ----------
    end : socket.socket
        This end of a socketpair.
    outgoing, incoming : int
        Descriptors of the file that this end writes, and of that which the other one writes.
    """

    def __init__(self, end: socket.socket, outgoing: int, incoming: int) -> None:
        end.setblocking(False)
        self._socket = end
        self._outgoing = _File(outgoing)
        self._incoming = _File(incoming)
        self._arrived = bytearray()
        self._readable = select.poll()
        self._readable.register(end, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(end, select.POLLOUT)

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two connected ends."""
        one, other = socket.socketpair()
        there, back = memory_file(), memory_file()
        return cls(one, there, back), cls(other, os.dup(back), os.dup(there))

    @classmethod
    def inherited(cls, descriptors: Sequence[int]) -> "Channel":
        """The end whose `descriptors` the process was started with."""
        end, outgoing, incoming = descriptors
        return cls(socket.socket(fileno=end), outgoing, incoming)

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What a process must inherit to use this end."""
        return self._socket.fileno(), self._outgoing.descriptor, self._incoming.descriptor

    def send(self, parcel: Parcel, seconds: float | None = None) -> None:
        """Send a parcel, for so many seconds at most; its buffers are free after that.

        Raises
        ------
        ChannelBroken
            The other end has gone, or does not read.
        """
        tag, head, buffers = parcel
        views = [memoryview(buffer) for buffer in buffers]
        start = self._outgoing.write(views) if views else 0
        header = _HEADER.pack(MAGIC, tag, len(views), len(head), start)
        sizes = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
        rest = memoryview(b"".join((header, sizes, head)))
        deadline = None if seconds is None else time.monotonic() + seconds
        while rest:
            try:
                rest = rest[self._socket.send(rest, _NO_SIGNAL) :]
            except BlockingIOError:
                if not _ready(self._writable, deadline):
                    raise ChannelBroken("the other end does not read") from None
            except OSError as error:
                raise ChannelBroken(f"cannot send: {error.strerror}") from error

    def poll(self) -> Parcel | None:
        """The next parcel, if it is there.

        Raises
        ------
        ChannelBroken
            The other end has gone, or has sent what is no parcel.
        """
        while (parcel := self._take()) is None:
            try:
                data = self._socket.recv(CHUNK)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelBroken(f"cannot receive: {error.strerror}") from error
            if not data:
                raise ChannelBroken("the connection was closed")
            self._arrived += data
        self._outgoing.restart()
        return parcel

    def receive(self, seconds: float | None = None) -> Parcel | None:
        """Sleep until the next parcel is there, for so many seconds at most. Raises what `poll` does."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (parcel := self.poll()) is None:
            if not _ready(self._readable, deadline):
                return None
        return parcel

    def _take(self) -> Parcel | None:
        """Cut the first parcel off what has arrived, if it is complete."""
        arrived = self._arrived
        if arrived[: len(MAGIC)] != MAGIC[: len(arrived)]:
            raise ChannelBroken("what came is not a message")
        if len(arrived) < _HEADER.size:
            return None
        _, tag, count, length, start = _HEADER.unpack_from(arrived)
        begin = _HEADER.size + 8 * count
        if len(arrived) < begin + length:
            return None
        buffers = []
        for size in struct.unpack_from(f"<{count}Q", arrived, _HEADER.size):
            buffers.append(self._incoming.read(start, size))
            start += size
        head = bytes(arrived[begin : begin + length])
        del arrived[: begin + length]
        return Parcel(tag, head, buffers)

    def close(self) -> None:
        """Give the descriptors back."""
        self._socket.close()
        self._outgoing.close()
        self._incoming.close()


def _ready(poller: select.poll, deadline: float | None) -> bool:
    """Sleep until a socket is ready; False if the deadline has passed before."""
    if deadline is None:
        poller.poll()
        return True
    left = deadline - time.monotonic()
    # Rounded up to whole milliseconds: a poll that ends too early would only be called again.
    return bool(poller.poll(max(0, int(left * 1e3 + 0.999))))
