"""By which ranks of one host wake each other: a sleeping rank costs nothing, and answers at once.

A ring carries no news; the news is a message of MPI's, sent before it. A ring that gets lost costs its
receiver the rest of one short sleep.
"""

import contextlib
import os
import select
import socket
import sys
from math import ceil

MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS = 200e-6, 5e-3
"""Seconds after which a rank that waits sleeps until its doorbell rings.

A ring moves its receiver to the sender's core, where both are then in each other's way for a while. So a
worker that is only waiting for a busy master's next batch looks for itself.
"""


class Doorbell:
    """A socket of this rank's, on which others of the same host ring.

    Attributes
    ----------
    address : str
        Where to ring; empty where there are no such sockets.
    host : str
        The same text for ranks that can ring each other.
    """

    def __init__(self) -> None:
        self.address = self.host = ""
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        with contextlib.suppress(OSError):
            with open("/proc/sys/kernel/random/boot_id") as boot:
                self.host = boot.read().strip() + os.readlink("/proc/self/ns/net")
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # An empty address lets the kernel choose an unused one, which lives as long as the socket.
            bell.bind("")
            bell.setblocking(False)
            self._socket = bell
            self.address = bell.getsockname().decode()

    @property
    def card(self) -> tuple[str, str]:
        """What others need to know to ring: host and address."""
        return self.host, self.address

    def reachable(self, cards: dict[int, tuple[str, str]]) -> tuple[dict[int, str], bool]:
        """Addresses of those ranks that can be rung from here, and whether those are all."""
        found = {rank: bell for rank, (host, bell) in cards.items() if bell and host == self.host}
        return found, len(found) == len(cards)

    def ring(self, address: str) -> None:
        """Wake the rank at `address`, if it sleeps."""
        if self._socket:
            # A full queue means that it has been rung; a missing one that it has gone.
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", address)

    def wait(self, seconds: float) -> None:
        """Sleep until somebody rings, for so many seconds at most."""
        # Several threads may sleep here at a time, and a poll object serves only one.
        poll = select.poll()
        if self._socket:
            poll.register(self._socket, select.POLLIN)
        if poll.poll(ceil(seconds * 1000)) and self._socket:
            with contextlib.suppress(OSError):
                while self._socket.recv(1):
                    pass

    def close(self) -> None:
        """Give the socket back."""
        if self._socket:
            self._socket.close()
