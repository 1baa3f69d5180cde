"""Memory that one worker sends to another one, where rank 0 has told both. No import of MPI here.

Both know the size, so there is no other message than the pieces, and they are received in their place.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from taskfarm.protocol.messages import Parcel
from taskfarm.transport.frames import pieces
from taskfarm.transport.interface import Received

OVERDUE_SECONDS = 5.0
"""Seconds without a piece after which a receiver need not wait any longer: the sender's task may be in C
code that holds the interpreter."""


class _Transfer:
    """Memory on its way.

    Attributes
    ----------
    peer, number : int
        The other rank, and the number of the transfer.
    requests : list
        The MPI requests that are not complete. They keep the memory.
    since : float
        When the last piece was complete.
    complete, overdue : Parcel or None
        As in `PeerTransfers.receive`; None for a sender, and for what has been returned.
    """

    def __init__(
        self, peer: int, number: int, since: float, complete: Parcel | None, overdue: Parcel | None
    ) -> None:
        self.peer = peer
        self.number = number
        self.requests: list[Any] = []
        self.since = since
        self.complete = complete
        self.overdue = overdue


class PeerTransfers:
    """Transfers between this worker and others.

    Parameters
    ----------
    comm : MPI.Intracomm
        The communicator. The number of a transfer is its tag, and no other message between two workers
        has that.
    piece : int
        Largest message, in bytes.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, comm: Any, piece: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._comm = comm
        self._piece = piece
        self._clock = clock
        self._transfers: list[_Transfer] = []
        self._broken: list[_Transfer] = []
        self._found: deque[Received] = deque()

    def send(self, dest: int, number: int, memory: memoryview) -> None:
        """Send memory, which must not change from now on."""
        self._start(_Transfer(dest, number, self._clock(), None, None), self._comm.Isend, memory)

    def receive(
        self, source: int, number: int, memory: memoryview, complete: Parcel, overdue: Parcel
    ) -> None:
        """Receive into memory.

        `poll` returns `complete` when all is there, and `overdue` if nothing has come for some time or the
        sender is lost. After the latter, the same content may still come in.
        """
        self._withdraw(source, number)
        transfer = _Transfer(source, number, self._clock(), complete, overdue)
        self._start(transfer, self._comm.Irecv, memory)

    def _withdraw(self, source: int, number: int) -> None:
        """Give up what was to come under a number that is used again: its sender has never sent it.

        Otherwise it would take the first pieces of what comes now.
        """
        for transfer in list(self._transfers):
            if transfer.complete is not None and (transfer.peer, transfer.number) == (source, number):
                for request in transfer.requests:
                    request.Cancel()
                self._break(transfer)

    def _start(self, transfer: _Transfer, start: Callable[..., Any], memory: Any) -> None:
        self._transfers.append(transfer)
        try:
            for one in pieces(memory, self._piece):
                transfer.requests.append(start(one, transfer.peer, transfer.number))
        except Exception:
            self._break(transfer)

    def _break(self, transfer: _Transfer) -> None:
        """Give up a transfer with a rank that is lost, or that was withdrawn.

        MPI may still use the memory, and a second test of a failed request would report it as complete.
        """
        self._transfers.remove(transfer)
        self._broken.append(transfer)
        self._return(transfer, transfer.overdue)

    def _return(self, transfer: _Transfer, parcel: Parcel | None) -> None:
        transfer.overdue = None
        if parcel is not None:
            self._found.append(Received(transfer.peer, parcel))

    def poll(self) -> Received | None:
        """Move everything; the next thing that a receiver waits for, if there is one."""
        now = self._clock()
        for transfer in list(self._transfers):
            try:
                left = [request for request in transfer.requests if not request.Test()]
            except Exception:
                self._break(transfer)
                continue
            if len(left) < len(transfer.requests):
                transfer.requests, transfer.since = left, now
            if not left:
                self._transfers.remove(transfer)
                self._return(transfer, transfer.complete)
            elif now - transfer.since > OVERDUE_SECONDS:
                self._return(transfer, transfer.overdue)
        return self._found.popleft() if self._found else None

    @property
    def moving(self) -> bool:
        """Whether pieces move, or did a moment ago."""
        now = self._clock()
        return any(now - transfer.since < OVERDUE_SECONDS for transfer in self._transfers)

    @property
    def pending(self) -> bool:
        """Whether a transfer is not complete, and may still be."""
        return bool(self._transfers or self._found)
