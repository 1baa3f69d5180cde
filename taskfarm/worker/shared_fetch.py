"""How a process asks for shared data: a worker its master, a child process its worker."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

from taskfarm.errors import HostMemoryError, SharedDataError
from taskfarm.protocol import messages, shared
from taskfarm.protocol.messages import (
    NO_ROOM,
    Answer,
    Attach,
    Build,
    Definitions,
    Expect,
    Failed,
    Fetch,
    Give,
    Have,
    Location,
    Parcel,
    Passed,
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
    expect : callable or None
        `Transport.expect`, if this process can receive data from others.
    sends : bool
        Whether this process can send data to others while it runs tasks.
    """

    def __init__(
        self,
        rank: int,
        send: Callable[[ToMaster], None],
        receive: Callable[[], Answer],
        expect: Callable[[int, int, memoryview, Parcel, Parcel], None] | None = None,
        sends: bool = False,
    ) -> None:
        self._send = send
        self._receive = receive
        self._expect = expect
        self._sends = sends
        self._number = 0
        # Others may ask as soon as they know, before the caller of `fetch` has it.
        self._segments: WeakValueDictionary[bytes, Segment] = WeakValueDictionary()
        # What answers bring of definitions they bring only once, also if another answer follows.
        self._needs: tuple[int, ...] = ()
        self._definitions: Definitions = ()
        self._host = self._shared_host = host_key()
        self._alone = f"{self._host} rank {rank} alone"
        # One question at a time: answers do not say which one they answer.
        self._asking = threading.Lock()
        self._reservation: Reservation | None = None

    def memory(self, head: bytearray, sizes: Sequence[int]) -> list[Any]:
        """The memory that is reserved for what is about to arrive; new memory for what comes with it."""
        from taskfarm.transport.frames import allocate

        reservation = self._reservation
        return [
            reservation.memory if reservation is not None and reservation.size == size else allocate(size)
            for size in sizes
        ]

    def held(self, token: bytes) -> Segment | None:
        return self._segments.get(token)

    def have(self, token: bytes, location: Location) -> None:
        self._send(Have(token, self._host, location, self._sends))

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
                self._keep(needs, definitions)
                return self._attach(token, location)
            case Build(_, blob, for_host, definitions):
                return ToBuild(blob, for_host, definitions)
            case Reserve(_, size):
                self._reserve(token, size)
            case Expect(_, source, number, needs, definitions):
                self._keep(needs, definitions)
                self._await_worker(token, source, number)
            case Passed(_, number, complete) if number == self._number:
                if complete:
                    return self._complete(token)
                self._send(Fetch(token, self._host, reserved=True, again=True))
            case Give(_, data, needs, definitions):
                self._keep(needs, definitions)
                return self._take(token, data)
            case Unavailable(_, why, text):
                raise shared.unavailable(why, text)
        return None

    def _keep(self, needs: tuple[int, ...], definitions: Definitions) -> None:
        self._needs = needs
        self._definitions = [*self._definitions, *definitions]

    def _found(self, token: bytes, segment: Segment) -> Found:
        self._segments[token] = segment
        self.have(token, segment.location)
        return Found(segment, self._needs, self._definitions)

    def _attach(self, token: bytes, location: Location) -> Source | None:
        try:
            segment = Segment.open(location)
        except OSError:
            if self._host == self._alone:
                raise
            # It has gone meanwhile, or the processes of this host cannot see each other: get a copy.
            self._host = self._alone
            self._send(Fetch(token, self._host))
            return None
        return self._found(token, segment)

    def _reserve(self, token: bytes, size: int) -> None:
        try:
            self._reservation = reservation = Reservation(size)
            # Mapped now: while a message arrives, it would be too late for an error.
            assert reservation.memory.nbytes == size
        except HostMemoryError as error:
            self.failed(token, error, NO_ROOM, final=False)
            raise
        self._send(Fetch(token, self._host, reserved=True))

    def _await_worker(self, token: bytes, source: int, number: int) -> None:
        """Receive from another worker, into the same memory whoever has begun to send before."""
        if self._reservation is not None and self._expect is not None:
            self._number = number
            complete, overdue = (
                messages.encode(Passed(token, number, is_there)) for is_there in (True, False)
            )
            self._expect(source, number, self._reservation.memory, complete, overdue)

    def _take(self, token: bytes, data: Any) -> Source | None:
        reservation = self._reservation
        if reservation is not None and not _is_in(data, reservation):
            reservation.write([(0, memoryview(data).cast("B"))])
        return self._complete(token)

    def _complete(self, token: bytes) -> Source | None:
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return None
        return self._found(token, reservation.complete())

    @contextlib.contextmanager
    def _no_reservation_left(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._reservation = None
            self._host = self._shared_host
            self._number, self._needs, self._definitions = 0, (), ()


def _is_in(data: Any, reservation: Reservation) -> bool:
    """Whether data was received into the memory that was reserved for it."""
    view = memoryview(data)
    return view.obj is reservation.memory.obj
