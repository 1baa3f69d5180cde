"""What workers send each other arrives in its place, or its receiver learns that it does not come."""

from typing import Any

from taskfarm.protocol.messages import Parcel
from taskfarm.transport.interface import Received
from taskfarm.transport.peers import OVERDUE_SECONDS, PeerTransfers

DONE, LATE = Parcel(1, b"done", ()), Parcel(1, b"late", ())


class Request:
    def __init__(self) -> None:
        self.done = False
        self.failed = self.cancelled = False

    def Cancel(self) -> None:
        self.cancelled = True

    def Test(self) -> bool:
        if self.failed:
            raise RuntimeError("that rank is lost")
        return self.done


class Comm:
    """Pieces that arrive when the test says so."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.targets: list[Any] = []
        self.broken = False

    def Irecv(self, memory: Any, peer: int, number: int) -> Request:
        if self.broken and self.requests:
            raise RuntimeError("that rank is lost")
        self.targets.append((memory, peer, number))
        self.requests.append(Request())
        return self.requests[-1]

    Isend = Irecv


class World:
    def __init__(self) -> None:
        self.comm = Comm()
        self.now = 100.0
        self.peers = PeerTransfers(self.comm, 4, lambda: self.now)

    def receive(self) -> bytearray:
        memory = bytearray(10)
        self.peers.receive(7, 3, memoryview(memory), DONE, LATE)
        return memory


def test_pieces_are_received_in_their_place() -> None:
    world = World()
    memory = world.receive()
    for (target, peer, number), content in zip(world.comm.targets, (b"abcd", b"efgh", b"ij"), strict=True):
        assert (peer, number) == (7, 3)
        target[:] = content
    assert world.peers.poll() is None
    for request in world.comm.requests:
        request.done = True
    assert world.peers.poll() == Received(7, DONE)
    assert world.peers.poll() is None
    assert memory == b"abcdefghij"
    assert not world.peers.pending


def test_each_piece_gives_it_more_time_and_what_is_overdue_may_still_come() -> None:
    world = World()
    world.receive()
    world.now += OVERDUE_SECONDS - 1
    world.comm.requests[1].done = True
    assert world.peers.poll() is None
    world.now += OVERDUE_SECONDS - 1
    assert world.peers.poll() is None
    assert world.peers.moving
    world.now += 2
    assert world.peers.poll() == Received(7, LATE)
    assert world.peers.poll() is None
    assert (world.peers.moving, world.peers.pending) == (False, True)
    for request in world.comm.requests:
        request.done = True
    assert world.peers.poll() == Received(7, DONE)


def test_a_lost_rank_is_overdue_at_once_and_never_complete() -> None:
    world = World()
    world.receive()
    world.comm.requests[0].failed = True
    assert world.peers.poll() == Received(7, LATE)
    world.comm.requests[0].failed = False
    for request in world.comm.requests:
        request.done = True
    assert world.peers.poll() is None
    assert not world.peers.pending


def test_a_rank_that_is_lost_before_is_overdue_too() -> None:
    world = World()
    world.comm.broken = True
    world.receive()
    world.peers.send(7, 4, memoryview(b"0123456789"))
    assert world.peers.poll() == Received(7, LATE)
    assert world.peers.poll() is None
    assert not world.peers.pending


def test_what_was_never_sent_takes_nothing_of_what_comes_under_its_number_later() -> None:
    world = World()
    world.receive()
    world.peers.receive(8, 3, memoryview(bytearray(4)), DONE, LATE)
    world.peers.send(7, 3, memoryview(bytearray(4)))
    stale, others = world.comm.requests[:3], world.comm.requests[3:]
    world.receive()
    assert all(request.cancelled for request in stale)
    assert not any(request.cancelled for request in others)
    assert world.peers.poll() == Received(7, LATE), "who waits for it looks elsewhere"
    for request in world.comm.requests[5:]:
        request.done = True
    assert world.peers.poll() == Received(7, DONE)
    assert world.peers.poll() is None
