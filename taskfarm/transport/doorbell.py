"""Ranks of one host wake each other, so that an idle rank sleeps and still answers without delay.

A ring carries no data: the message itself is sent over MPI before the ring. A lost ring delays its receiver
until the end of one short sleep.
"""

import contextlib
import os
import select
import socket
import sys
from math import ceil

MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS = 200e-6, 5e-3
"""Seconds of waiting after which a rank sleeps until its doorbell rings.

The kernel tends to move a rank that is rung to the sender's core, for which the two then compete. So a
worker keeps polling for as long as a busy master may need to send its next batch.
"""


class Doorbell:
    """A socket of this rank, by which other ranks of the same host wake it.

    Attributes
    ----------
    address : str
        The address of the socket; empty if the system has no such sockets.
    host : str
        Identifies the host and its network namespace: ranks with the same text can ring each other.
    """

    def __init__(self) -> None:
        self.address = self.host = ""
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        with contextlib.suppress(OSError):
            with open("/proc/sys/kernel/random/boot_id") as boot:
                self.host = boot.read().strip() + os.readlink("/proc/self/ns/net")
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # An empty address lets the kernel choose an unused one, which is freed with the socket.
            receiver.bind("")
            receiver.setblocking(False)
            self._socket = receiver
            self.address = receiver.getsockname().decode()

    @property
    def contact(self) -> tuple[str, str]:
        """Host and address, which other ranks need in order to ring."""
        return self.host, self.address

    def reachable(self, contacts: dict[int, tuple[str, str]]) -> tuple[dict[int, str], bool]:
        """The addresses of the ranks that this one can ring, and whether it can ring all of them."""
        addresses = {
            rank: address for rank, (host, address) in contacts.items() if address and host == self.host
        }
        return addresses, len(addresses) == len(contacts)

    def ring(self, address: str) -> None:
        """Wake the rank at `address`, if it is asleep."""
        if self._socket:
            # A full queue means that it has been rung already, a missing one that the rank has ended.
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", address)

    def wait(self, seconds: float) -> None:
        """Sleep until another rank rings, for at most this many seconds."""
        # Several threads may sleep here at the same time, and a poll object serves only one.
        poll = select.poll()
        if self._socket:
            descriptor = self._socket.fileno()
            if descriptor < 0:  # closed meanwhile by the thread that ends the farm
                return
            poll.register(descriptor, select.POLLIN)
        if poll.poll(ceil(seconds * 1000)) and self._socket:
            with contextlib.suppress(OSError):
                while self._socket.recv(1):
                    pass

    def close(self) -> None:
        """Release the socket."""
        if self._socket:
            self._socket.close()
