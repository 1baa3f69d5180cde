"""Ranks of one host wake each other, so that an idle rank sleeps and still answers without delay.

A rank that is about to sleep says so in memory that the ranks of its host share. So whoever sends to it
knows whether to ring, and a message to a rank that is awake costs no system call. A ring carries no data:
the message itself is sent over MPI before.

Saying that one sleeps and looking for messages are two steps, and so are sending and looking whether the
other one sleeps. A processor may reorder them, and a process may be killed between them. Then no ring
comes, and the receiver finds the message at the end of one short sleep.

Rank 0 makes the memory and the bells, and passes them on over a socket. They have no names, so nothing
remains of them, however the ranks end.
"""

import contextlib
import mmap
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from taskfarm.fork_hooks import in_forked_children

STRIDE = 64
"""Bytes of the shared memory for each rank: cores pass memory on by lines of this size."""

TOKEN_BYTES = 16
"""Bytes by which a rank recognizes what rank 0 sends: any process may write to its socket."""

MOST_STRANGERS = 100
"""Messages of other processes that a rank skips to find that of rank 0."""


class Contact(NamedTuple):
    """What rank 0 needs to know of a rank to reach it.

    Attributes
    ----------
    host : str
        Identifies the host and its network namespace; empty if the rank cannot be woken.
    address : str
        The address of the rank's socket.
    token : bytes
        What a message to this socket has to hold.
    cores : int
        The cores that the rank may use: bit n stands for core n.
    """

    host: str
    address: str
    token: bytes
    cores: int


class Doorbell:
    """Tells others that this rank sleeps, lets them wake it, and wakes others.

    Until rank 0 has called `hand_out` and the other ranks `take`, nobody rings, and nobody need.

    Parameters
    ----------
    rank, size : int
        This rank, and the number of ranks.

    Attributes
    ----------
    asleep : sequence of int
        For each rank 1 if it sleeps and has to be rung, else 0. It stays 0 if the rank cannot be rung.
    rung_by_all : bool
        Whether every rank that sends to this one can wake it.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.asleep: Any = bytearray(size)
        self.rung_by_all = False
        self._rank, self._size = rank, size
        self._bells: dict[int, Any] = {}
        self._sleeper = threading.Lock()
        self._socket: socket.socket | None = None
        self.contact = self._open()
        in_forked_children(self._forget_all)

    def _open(self) -> Contact:
        """Open the socket over which the bells are passed on."""
        cores = sum(1 << core for core in _affinity())
        if hasattr(os, "eventfd"):
            with contextlib.suppress(OSError):
                with open("/proc/sys/kernel/random/boot_id") as boot:
                    host = boot.read().strip() + os.readlink("/proc/self/ns/net")
                receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                # An empty address lets the kernel choose an unused one, which is freed with the socket.
                receiver.bind("")
                receiver.setblocking(False)
                self._socket = receiver
                return Contact(host, receiver.getsockname().decode(), os.urandom(TOKEN_BYTES), cores)
        return Contact("", "", b"", cores)

    def hand_out(self, contacts: Sequence[Contact]) -> bool:
        """Make the memory and the bells, and pass them on to the ranks of this host; on rank 0.

        Parameters
        ----------
        contacts : sequence of Contact
            Those of all ranks.

        Returns
        -------
        bool
            Whether this rank has a bell, which those that `take` can ring.
        """
        with contextlib.suppress(OSError):
            if self._socket is not None:
                with _opened(os.memfd_create("taskfarm-asleep")) as board:
                    self._hand_out(board.fileno(), contacts, self._socket)
        self._close_socket()
        return 0 in self._bells

    def _hand_out(self, board: int, contacts: Sequence[Contact], sender: socket.socket) -> None:
        os.ftruncate(board, self._size * STRIDE)
        self._use(board)
        own = self._bells[0] = _opened(os.eventfd(0, _FLAGS))
        for rank, contact in enumerate(contacts):
            if rank and contact.host == self.contact.host:
                bell = _opened(os.eventfd(0, _FLAGS))
                files = struct.pack("3i", board, own.fileno(), bell.fileno())
                try:
                    sender.sendmsg(
                        [contact.token],
                        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)],
                        0,
                        contact.address,
                    )
                    self._bells[rank] = bell
                except OSError:
                    # It has ended, or too many files are on their way: it will not be rung.
                    bell.close()

    def take(self) -> bool:
        """Take what rank 0 has passed on, if there is anything; does not wait. On the other ranks."""
        # An error: there is nothing, or a limit on files or addresses is reached.
        with contextlib.suppress(OSError):
            for _ in range(MOST_STRANGERS):
                if self.rung_by_all or self._socket is None:
                    break
                self._take_from(self._socket)
        self._close_socket()
        return self.rung_by_all

    def _take_from(self, receiver: socket.socket) -> None:
        space = socket.CMSG_SPACE(struct.calcsize("3i"))
        token, rights, _, _ = receiver.recvmsg(TOKEN_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        files = [_opened(number) for _, _, data in rights for (number,) in struct.iter_unpack("i", data)]
        if token == self.contact.token and len(files) == 3:
            board, own, bell = files
            self._bells = {0: own, self._rank: bell}
            self._use(board.fileno())
            self.rung_by_all = True
            files = [board]
        for file in files:
            file.close()

    def _use(self, board: int) -> None:
        self.asleep = memoryview(mmap.mmap(board, self._size * STRIDE))[::STRIDE]

    def ring(self, rank: int) -> None:
        """Wake a rank that sleeps."""
        # Before the ring: afterwards the rank may have gone to sleep again.
        self.asleep[rank] = 0
        if (bell := self._bells.get(rank)) is not None:
            with contextlib.suppress(OSError, ValueError):
                os.eventfd_write(bell.fileno(), 1)

    def announce_sleep(self) -> bool:
        """Ask the others to ring from now on; False if this rank has asked already, and nobody has rung."""
        if self.asleep[self._rank]:
            return False
        self.asleep[self._rank] = 1
        return True

    def wait(self, seconds: float) -> bool | None:
        """Sleep until another rank rings, for at most this many seconds.

        Returns
        -------
        bool or None
            Whether one has rung; None immediately if another thread sleeps here: only one would be woken.
        """
        if not self._sleeper.acquire(blocking=False):
            return None
        try:
            # Taken back by a ring, or by a thread that has just woken up here.
            announced = self.asleep[self._rank]
            return self._sleep(self._bells[self._rank], seconds if announced else 0.0)
        finally:
            self.asleep[self._rank] = 0
            self._sleeper.release()

    def _sleep(self, bell: Any, seconds: float) -> bool:
        # Closed meanwhile by the thread that ends the farm.
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(bell.fileno(), select.POLLIN)
            if poll.poll(ceil(seconds * 1000)):
                bell.read(8)
                return True
        return False

    def close(self) -> None:
        """Release the bells and the memory, which holds a descriptor."""
        self._close_socket()
        self._forget_all()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _forget_all(self) -> None:
        """Ring nobody any more; a process that was forked leaves what belongs to its parent alone."""
        self.asleep, self.rung_by_all = bytearray(self._size), False
        for bell in self._bells.values():
            bell.close()


_FLAGS = os.EFD_CLOEXEC | os.EFD_NONBLOCK if hasattr(os, "eventfd") else 0


def _opened(descriptor: int) -> Any:
    """A file that closes a descriptor."""
    return open(descriptor, "r+b", buffering=0)


def _affinity() -> "set[int] | range":
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def crowded(contacts: Sequence[Contact]) -> list[bool]:
    """Whether, for each rank, the ranks of its host outnumber the cores that they may use. Pure.

    Ranks that use other cores than this one do not count. A rank whose host is unknown is taken to be
    crowded.
    """
    ranks = Counter((contact.host, contact.cores) for contact in contacts)
    found = {place: _is_crowded(*place, ranks) for place in ranks}
    return [found[contact.host, contact.cores] for contact in contacts]


def _is_crowded(host: str, cores: int, ranks: Mapping[tuple[str, int], int]) -> bool:
    used = number = 0
    for (other_host, other_cores), count in ranks.items():
        if other_host == host and other_cores & cores:
            used |= other_cores
            number += count
    return not host or number > used.bit_count()
