"""The interface between a rank and the wire."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from taskfarm.protocol.messages import Parcel


class Received(NamedTuple):
    """A parcel and the rank that sent it."""

    source: int
    parcel: Parcel


class Transport(ABC):
    """Carries parcels between ranks; between two ranks their order is kept. No call blocks."""

    rank: int
    """This rank; the master is 0."""

    size: int
    """Ranks in all, the master included."""

    inline: bool = False
    """Whether the worker runs inside `send`, in the calling thread."""

    threads: bool = True
    """Whether several threads may use the transport, one at a time."""

    has_unreachable: bool = False
    """Whether some rank was given up that may still be there."""

    @abstractmethod
    def send(self, dest: int, parcel: Parcel) -> None:
        """Start to send; the buffers belong to the transport until `unsent` no longer counts them."""

    @abstractmethod
    def poll(self) -> Received | None:
        """Take the next parcel that has arrived completely, if there is one, and move the rest on."""

    @abstractmethod
    def unsent(self) -> int:
        """Parcels of which some part is still on its way out."""

    @property
    def moving(self) -> bool:
        """Whether some part of a parcel is on its way, in or out: it moves on only while this end polls."""
        return bool(self.unsent())

    def sleep(self, seconds: float) -> bool:
        """Sleep until something may have come, for so many seconds at most.

        Returns False, at once, where this end is not woken by all that may come.
        """
        return False

    def lost(self) -> list[int]:
        """Ranks found dead since the last call; none where the MPI cannot tell."""
        return []

    def forget(self, rank: int) -> None:  # noqa: B027  # a wire in one process keeps nothing
        """Drop all that is on its way to or from a rank that was given up; nothing is sent to it again."""

    @property
    def damaged(self) -> bool:
        """Whether some rank was lost: then the others must leave without a word to MPI."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Give back what the transport holds, after the last message; collective unless damaged."""

    def leave(self, code: int) -> None:
        """End this rank with an exit code, for a transport that is damaged; does not return."""
        raise NotImplementedError

    @abstractmethod
    def abort(self, code: int) -> None:
        """End every rank at once with this exit code; does not return."""
