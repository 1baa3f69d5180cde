"""Parcels between a worker and its child process: a socketpair, and an in-memory file in each direction.

A frame on the socket consists of a header (tag, number of buffers, size of the head, offset of the buffers
in the file), the sizes of the buffers, and the head. The buffers themselves are written to the sender's
file. Its pages are reused, because new pages would cost ten times as much. A sender appends the buffers of
each parcel. It starts again at offset 0 after it has received a parcel, because each end replies only after
it has read everything sent before. The receiver copies the buffers into its own memory.

Files are read and written by system calls, not through mapped memory, so that whatever the other end does
to a file can cause an error but never a SIGBUS.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from taskfarm.protocol.messages import Parcel, TooLarge
from taskfarm.transport.frames import allocate
from taskfarm.transport.segments import memory_file

MAGIC = b"farm"
"""First bytes of each frame: what a task writes to the socket itself is not mistaken for a frame."""

MAX_KEPT = 1 << 27
"""Largest size that a file keeps between messages, in bytes."""

SOCKET_CHUNK = 1 << 16
"""Bytes to read from the socket at once."""

MAX_FILE_CHUNK = 1 << 30
"""Most bytes to read from or write to a file at once: the kernel transfers at most 2 GiB."""

CONNECTION_LOST = 74
"""Exit code of a child that has lost the connection to its worker: EX_IOERR."""

_HEADER = struct.Struct("<4sBxxxIIQ")
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class ChannelBroken(Exception):
    """The other end is closed, or the data from it is invalid."""


class _File:
    """One end's view of an in-memory file.

    Parameters
    ----------
    descriptor : int
        The descriptor of the file, which this object closes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._identity = os.fstat(descriptor)
        self._position = self._size = 0

    def _check(self) -> None:
        """Raise ChannelBroken if a task has closed the descriptor, which may refer to another file now."""
        try:
            same = os.path.samestat(os.fstat(self.descriptor), self._identity)
        except OSError:
            same = False
        if not same:
            raise ChannelBroken("a file descriptor of the connection was closed")

    def restart(self) -> None:
        """Start again at offset 0, when everything written has been read."""
        self._position = 0
        if self._size > MAX_KEPT:
            self._check()
            os.ftruncate(self.descriptor, MAX_KEPT)
            self._size = MAX_KEPT

    def write(self, buffers: Sequence[memoryview]) -> int:
        """Append buffers; returns the offset of the first one."""
        self._check()
        start = self._position
        end = start + sum(buffer.nbytes for buffer in buffers)
        if end > self._size:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.descriptor, self._size, end - self._size)
            self._size = end
        for buffer in buffers:
            while buffer:
                written = os.pwrite(self.descriptor, buffer[:MAX_FILE_CHUNK], self._position)
                buffer = buffer[written:]
                self._position += written
        return start

    def read(self, start: int, size: int) -> Any:
        """`size` bytes from offset `start` on, copied into a new array; `TooLarge` if memory lacks."""
        self._check()
        if start + size > os.fstat(self.descriptor).st_size:
            raise ChannelBroken("a message refers to more data than its file holds")
        array = allocate(size)
        if isinstance(array, TooLarge):
            return array
        rest = memoryview(array)
        while rest:
            count = os.preadv(self.descriptor, [rest[:MAX_FILE_CHUNK]], start)
            if not count:
                raise ChannelBroken("the data of a message is truncated")
            rest = rest[count:]
            start += count
        return array

    def close(self) -> None:
        """Close the descriptor, if it still belongs to this file."""
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
        Descriptors of the file that this end writes and of the one that it reads.
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
        outgoing, incoming = memory_file(), memory_file()
        return cls(one, outgoing, incoming), cls(other, os.dup(incoming), os.dup(outgoing))

    @classmethod
    def inherited(cls, descriptors: Sequence[int]) -> "Channel":
        """The end whose `descriptors` this process has inherited."""
        end, outgoing, incoming = descriptors
        return cls(socket.socket(fileno=end), outgoing, incoming)

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """The descriptors that a process must inherit to use this end."""
        return self._socket.fileno(), self._outgoing.descriptor, self._incoming.descriptor

    def send(self, parcel: Parcel, seconds: float | None = None) -> None:
        """Send a parcel within `seconds`; then its buffers may change.

        Raises
        ------
        ChannelBroken
            The other end is closed, or does not read.
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
        """The next parcel, if it has arrived.

        Raises
        ------
        ChannelBroken
            The other end is closed, or has sent something other than a parcel.
        """
        while (parcel := self._take()) is None:
            try:
                data = self._socket.recv(SOCKET_CHUNK)
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
        """Wait at most `seconds` for the next parcel; None if there is none. Raises what `poll` raises."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (parcel := self.poll()) is None:
            if not _ready(self._readable, deadline):
                return None
        return parcel

    def _take(self) -> Parcel | None:
        """Remove the first parcel from the data that has arrived, if it is complete."""
        arrived = self._arrived
        if arrived[: len(MAGIC)] != MAGIC[: len(arrived)]:
            raise ChannelBroken("the data received is not a message")
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

    def shut_down(self) -> None:
        """End the connection: a thread that is sending gets an error."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the descriptors."""
        self._socket.close()
        self._outgoing.close()
        self._incoming.close()


def _ready(poller: select.poll, deadline: float | None) -> bool:
    """Sleep until a socket is ready; False if the deadline passes first."""
    if deadline is None:
        poller.poll()
        return True
    left = deadline - time.monotonic()
    # Rounded up to whole milliseconds: a poll that ends too early would have to be repeated.
    return bool(poller.poll(max(0, int(left * 1e3 + 0.999))))
