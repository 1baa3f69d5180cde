"""The interface of transports."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from taskfarm.protocol.messages import Parcel
from taskfarm.transport.frames import Allocate


class Received(NamedTuple):
    """A parcel and the rank that sent it."""

    source: int
    parcel: Parcel


class Transport(ABC):
    """Carries parcels between ranks, in order for each pair of ranks. Neither `send` nor `poll` blocks."""

    rank: int
    """This rank; the master is 0."""

    size: int
    """Number of ranks, the master included."""

    inline: bool = False
    """Whether the worker runs inside `send`, in the calling thread."""

    in_process: bool = False
    """Whether all of its ranks are in this process."""

    threads: bool = True
    """Whether several threads may use the transport, one at a time."""

    gangs: bool = False
    """Whether tasks may run on several ranks: they, and this transport at the same time, use MPI."""

    survives: bool = False
    """Whether the others go on when a rank dies."""

    wakeup_seconds: float = 0.0
    """What a sleep of no length lasts here, in seconds."""

    crowded: bool = True
    """Whether the ranks of this host outnumber the cores that they may use, or may do so."""

    has_unreachable: bool = False
    """Whether a rank that was given up may still be running."""

    def receive_into(self, tag: int, allocate: Allocate | None) -> None:  # noqa: B027  # see below
        """Receive the large buffers of messages with a tag into memory that `allocate` returns.

        None: into new memory, as without this. A transport within one process, which copies them anyway,
        may do without.
        """

    def receives_into(self, memory: Any) -> bool:
        """Whether a large buffer that has not arrived completely goes, or may go, into this array."""
        return False

    def run_meanwhile(self, run_master: Callable[[], bool]) -> None:  # noqa: B027  # see below
        """Let `run_master` run while a task in this process waits; False means that nothing happened.

        A transport between processes may do without.
        """

    def run_master(self) -> bool:
        """Run the master while a task in its process waits; False if nothing happened."""
        return False

    @abstractmethod
    def send(self, dest: int, parcel: Parcel) -> None:
        """Start to send; the buffers must not change until `unsent` no longer counts the parcel."""

    def rouse(self, rank: int) -> None:  # noqa: B027  # a transport within one process has nobody to wake
        """Wake a rank that sleeps: a parcel for it will follow soon, if all goes well.

        It wakes up while its parcel is made. Any thread may call this at any time.
        """

    @abstractmethod
    def poll(self) -> Received | None:
        """Return the next complete parcel, if there is one, and progress the others."""

    @abstractmethod
    def unsent(self) -> int:
        """Number of parcels that have not been sent completely."""

    @property
    def moving(self) -> bool:
        """Whether a parcel is partly sent or received: it progresses only while this rank polls."""
        return bool(self.unsent())

    def sleep(self, seconds: float) -> bool | None:
        """Sleep until a message may have arrived, for at most this many seconds.

        The first call only lets the senders know, and returns immediately: what they had sent by then has
        to be polled for once more.

        Returns
        -------
        bool or None
            Whether a sender has woken this rank; None immediately if some sender cannot, or another thread
            sleeps here.
        """
        return None

    def lost(self) -> list[int]:
        """Ranks found dead since the last call; none if the transport cannot detect that."""
        return []

    def forget(self, rank: int) -> None:  # noqa: B027  # a transport within one process has nothing to drop
        """Drop everything in flight to or from a rank that was given up, and send nothing to it again."""

    @property
    def damaged(self) -> bool:
        """Whether a rank is, or may be, lost: then the others must end without finalizing MPI."""
        return False

    def finalize(self) -> None:  # noqa: B027  # a transport within one process has nothing to finalize
        """Wait for all ranks and end MPI; nothing else may be called afterwards."""

    def pass_on(self, dest: int, number: int, memory: memoryview) -> None:
        """Start to send memory to another worker, which expects it under this number.

        Called only where workers do not find shared data in their own process.
        """
        raise NotImplementedError

    def expect(
        self, source: int, number: int, memory: memoryview, complete: Parcel, overdue: Parcel
    ) -> None:
        """Start to receive what another worker passes on.

        `poll` returns `complete` when all is there, and `overdue` if nothing has come for some time or the
        sender is lost. After the latter, the same content may still come in.
        """
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the transport, after the last message; collective unless damaged."""

    def leave(self, code: int) -> None:
        """End this rank with an exit code if the transport is damaged; does not return."""
        raise NotImplementedError

    @abstractmethod
    def abort(self, code: int) -> None:
        """End every rank immediately with this exit code; does not return."""
