"""How a process asks for shared data: a worker its master, a child process its worker."""

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

from taskfarm.errors import HostMemoryError, SharedDataError
from taskfarm.protocol import shared
from taskfarm.protocol.messages import (
    NO_ROOM,
    Answer,
    Attach,
    Build,
    Definitions,
    ExpectKept,
    Failed,
    Fetch,
    Give,
    Have,
    Location,
    Reserve,
    ToMaster,
    Unavailable,
)
from taskfarm.transport.segments import Reservation, Segment, host_key
from taskfarm.worker.shared_data import Found, Source, Supplier, ToBuild


class Fetcher(Supplier):
    """Gets data from a process that has it, or that knows who has.

    Parameters
    ----------
    rank : int
        The rank of this process.
    send : callable
        Sends a message to that process.
    receive : callable
        Waits for the next answer.

    Attributes
    ----------
    expect_kept : callable or None
        Called with a rank and a message, lets the data of that message come from that rank; None: other
        ranks cannot be reached.
    expect_no_more : callable or None
        Called with a rank, gives that up.
    """

    def __init__(self, rank: int, send: Callable[[ToMaster], None], receive: Callable[[], Answer]) -> None:
        self._send = send
        self._receive = receive
        self.expect_kept: Callable[[int, Give], None] | None = None
        self.expect_no_more: Callable[[int], None] | None = None
        self._source = 0
        self._host = self._shared_host = host_key()
        self._alone = f"{self._host} rank {rank} alone"
        # One question at a time: answers do not say which one they answer.
        self._asking = threading.Lock()
        self._reservation: Reservation | None = None

    def memory(self, size: int) -> Any:
        """The memory that is reserved for what is about to arrive."""
        reservation = self._reservation
        if reservation is not None and reservation.size == size:
            return reservation.memory
        from taskfarm.transport.frames import allocate

        return allocate(size)

    def have(self, token: bytes, location: Location) -> None:
        self._send(Have(token, self._host, location))

    def failed(self, token: bytes, error: SharedDataError, why: str, final: bool) -> None:
        self._send(Failed(token, self._host, why, str(error), final))

    def fetch(self, token: bytes) -> Source:
        with self._asking, self._no_reservation_left():
            self._send(Fetch(token, self._host))
            while True:
                answer = self._receive()
                if answer.token != token:
                    # Of a question that was given up.
                    continue
                source = self._follow(token, answer)
                if source is not None:
                    return source

    def _follow(self, token: bytes, answer: Answer) -> Source | None:
        """Do what an answer says; None if another one follows."""
        match answer:
            case Attach(_, location, needs, definitions):
                return self._attach(token, location, needs, definitions)
            case Build(_, blob, for_host, definitions):
                return ToBuild(blob, for_host, definitions)
            case Reserve(_, size):
                self._reserve(token, size)
            case ExpectKept(_, peer):
                self._expect_from(token, peer)
            case Give(_, data, needs, definitions):
                return self._take(token, data, needs, definitions)
            case Unavailable(_, why, text):
                if self._source and self.expect_no_more is not None:
                    self.expect_no_more(self._source)
                raise shared.unavailable(why, text)
        return None

    def _attach(
        self, token: bytes, location: Location, needs: tuple[int, ...], definitions: Definitions
    ) -> Source | None:
        try:
            segment = Segment.open(location)
        except OSError:
            if self._host == self._alone:
                raise
            # It has gone meanwhile, or the processes of this host cannot see each other: get a copy.
            self._host = self._alone
            self._send(Fetch(token, self._host))
            return None
        self.have(token, segment.location)
        return Found(segment, needs, definitions)

    def _reserve(self, token: bytes, size: int) -> None:
        try:
            self._reservation = reservation = Reservation(size)
            # Mapped now: while a message arrives, it would be too late for an error.
            assert reservation.memory.nbytes == size
        except HostMemoryError as error:
            self.failed(token, error, NO_ROOM, final=False)
            raise
        self._send(Fetch(token, self._host, reserved=True))

    def _expect_from(self, token: bytes, source: int) -> None:
        """ExpectKept data from another worker, in the memory that is reserved for it."""
        if self._reservation is not None and self.expect_kept is not None:
            self._source = source
            self.expect_kept(source, Give(token, pickle.PickleBuffer(self._reservation.memory)))

    def _take(
        self, token: bytes, data: Any, needs: tuple[int, ...], definitions: Definitions
    ) -> Source | None:
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return None
        if not _is_in(data, reservation):
            reservation.write([(0, memoryview(data).cast("B"))])
        segment = reservation.complete()
        self.have(token, segment.location)
        return Found(segment, needs, definitions)

    @contextlib.contextmanager
    def _no_reservation_left(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._reservation = None
            self._source = 0
            self._host = self._shared_host


def _is_in(data: Any, reservation: Reservation) -> bool:
    """Whether data was received into the memory that was reserved for it."""
    view = memoryview(data)
    return view.obj is reservation.memory.obj
