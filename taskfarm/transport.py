"""The interface between a rank and the wire."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from taskfarm.messages import Parcel


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

    @abstractmethod
    def send(self, dest: int, parcel: Parcel) -> None:
        """Start to send; the buffers belong to the transport until `unsent` no longer counts them."""

    @abstractmethod
    def poll(self) -> Received | None:
        """Take the next parcel that has arrived completely, if there is one, and move the rest on."""

    @abstractmethod
    def unsent(self) -> int:
        """Parcels of which some part is still on its way out."""

    def arriving(self) -> int:
        """Parcels of which some part is still on its way in."""
        return 0

    def lost(self) -> list[int]:
        """Ranks found dead since the last call; none where the MPI cannot tell."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give back what the transport holds, after the last message; collective."""

    @abstractmethod
    def abort(self, code: int) -> None:
        """End every rank at once with this exit code; does not return."""
