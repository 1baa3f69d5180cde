"""A waiting rank spins only if that is cheap, sleeps until its doorbell rings, and always wakes up."""

import threading

import pytest

from taskfarm.testing import VirtualClock
from taskfarm.transport.doorbell import MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS, Doorbell
from taskfarm.transport.waiting import (
    MAX_DOORBELL_SLEEP,
    MAX_SLEEP,
    MIN_SLEEP,
    MOVING_SECONDS,
    SPIN_SECONDS,
    Waiter,
)
from taskfarm.worker.local import WorkerEnd


class Wire(WorkerEnd):
    """An end of a wire that notes how long it naps."""

    def __init__(self, rank: int, rings: bool, sending: int = 0) -> None:
        super().__init__(rank, None)  # type: ignore[arg-type]
        self.naps: list[float] = []
        self.rings = rings
        self.sending = sending

    def unsent(self) -> int:
        return self.sending

    def sleep(self, seconds: float) -> bool:
        if self.rings:
            self.naps.append(seconds)
        return self.rings


class Sleeps(VirtualClock):
    """A clock that notes how long somebody slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


@pytest.mark.parametrize(("rank", "awake"), [(0, MASTER_AWAKE_SECONDS), (1, WORKER_AWAKE_SECONDS)])
def test_a_rank_that_can_be_rung_naps_and_looks_for_itself_now_and_then(rank: int, awake: float) -> None:
    wire, clock = Wire(rank, rings=True), Sleeps()
    waiter = Waiter(clock, wire)
    for waited in (0.0, awake / 2):
        waiter.pause(waited)
    assert not wire.naps
    for waited in (2 * awake, 1.0, 3600.0):
        waiter.pause(waited)
    assert 0 < min(wire.naps) <= max(wire.naps) <= MAX_DOORBELL_SLEEP


def test_a_rank_that_nobody_rings_sleeps_longer_and_longer() -> None:
    clock = Sleeps()
    waiter = Waiter(clock, Wire(1, rings=False))
    for waited in (0.01, 0.1, 1.0, 10.0):
        waiter.pause(waited)
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[0] >= MIN_SLEEP
    assert clock.slept[-1] == MAX_SLEEP


def test_a_wait_begins_by_spinning_only_if_that_pays() -> None:
    clock = Sleeps()
    waiter = Waiter(clock, Wire(1, rings=False))
    waiter.pause(SPIN_SECONDS / 2)
    assert clock.slept.pop() == 0, "the first wait begins by spinning"
    waiter.received(10 * SPIN_SECONDS)
    waiter.pause(SPIN_SECONDS / 2)
    assert clock.slept.pop() > 0, "the wait before was long, but not long enough to make spinning cheap"
    waiter.received(SPIN_SECONDS / 2)
    waiter.pause(SPIN_SECONDS / 2)
    assert clock.slept.pop() == 0, "the wait before was short"
    waiter.received(1.0)
    waiter.pause(SPIN_SECONDS / 2)
    assert clock.slept.pop() == 0, "the wait before was so long that spinning is cheap"


def test_no_rank_naps_while_large_messages_move() -> None:
    wire, clock = Wire(0, rings=True, sending=1), Sleeps()
    waiter = Waiter(clock, wire)
    waiter.pause(MOVING_SECONDS / 2)
    waiter.pause(10.0)
    assert clock.slept == [0.0, MAX_SLEEP]
    assert not wire.naps


def test_a_ring_ends_a_sleep() -> None:
    one, other = Doorbell(), Doorbell()
    assert one.address != other.address
    assert one.host == other.host
    ringer = threading.Thread(target=one.ring, args=[other.address])
    ringer.start()
    other.wait(60.0)
    ringer.join()
    other.wait(0.001)  # nobody rings
    one.close()
    other.close()


def test_rings_for_one_that_is_awake_or_gone_do_no_harm() -> None:
    one, other = Doorbell(), Doorbell()
    for _ in range(1000):
        one.ring(other.address)
    other.wait(60.0)
    other.close()
    one.ring(other.address)
    one.close()
