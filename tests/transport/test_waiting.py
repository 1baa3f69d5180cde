"""A waiting rank spins while that pays, naps or sleeps until it is rung, and always wakes up."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.testing import VirtualClock
from taskfarm.transport.waiting import (
    MAX_SLEEP,
    MAX_WAKEUP,
    MIN_SLEEP,
    MIN_WAKEUP,
    MOVING_SECONDS,
    RETRY,
    WORKER_DOORBELL_SLEEP,
    Waiter,
    measure_wakeup,
    nap_seconds,
)
from taskfarm.worker.local import WorkerEnd

WAKEUPS = [20e-6, 50e-6, 75e-6, 125e-6, 185e-6]
"""What a wake-up lasts: on bare metal, and on virtual machines."""


class Clock(VirtualClock):
    """A clock that notes how long somebody slept; 0 stands for a yield."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


class Wire(WorkerEnd):
    """An end of a wire that notes how long it sleeps until it is rung."""

    def __init__(self, clock: Clock, wakeup: float, crowded: bool, rings: bool) -> None:
        super().__init__(1, None)  # type: ignore[arg-type]
        self.clock = clock
        self.wakeup_seconds, self.crowded, self.rings = wakeup, crowded, rings
        self.sleeps: list[float] = []
        self.sending = 0
        self.rung = False

    def unsent(self) -> int:
        return self.sending

    def sleep(self, seconds: float) -> bool | None:
        if not self.rings:
            return None
        self.sleeps.append(seconds)
        self.clock.advance(0.0 if self.rung else seconds)
        return self.rung


class Rank:
    """A rank of which one can ask whether it sleeps after it has waited for some time."""

    def __init__(self, wakeup: float = 60e-6, crowded: bool = True, rings: bool = True) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock, wakeup, crowded, rings)
        self.waiter = Waiter(self.clock, self.wire)

    def waits(self, waited: float) -> bool:
        """Wait for a message that comes after some time; returns whether the rank slept by then."""
        slept = self.sleeps_after(waited)
        self.waiter.received()
        return slept

    def sleeps_after(self, waited: float) -> bool:
        before = len(self.wire.sleeps), len(self.clock.slept)
        self.waiter.pause(waited)
        return len(self.wire.sleeps) > before[0] or any(self.clock.slept[before[1] :])


@pytest.mark.parametrize("rings", [True, False])
@pytest.mark.parametrize("crowded", [True, False])
@pytest.mark.parametrize("wakeup", WAKEUPS)
def test_ping_and_pong_is_fast_again_after_any_disturbance(
    wakeup: float, crowded: bool, rings: bool
) -> None:
    """Whoever has slept answers late, by a wake-up and by code that runs five times slower for once."""
    hot = 45e-6
    ranks = [Rank(wakeup, crowded, rings) for _ in range(2)]
    for disturbances in (1, 2, 3, 5, 10, 17):
        for rank in ranks:
            for _ in range(disturbances):
                rank.waits(0.05)
        answers = [hot]
        for turn in range(2 * RETRY + 6):
            slept = ranks[turn % 2].waits(answers[-1])
            answers.append(wakeup + 5 * hot if slept else hot)
        assert answers[-4:] == [hot] * 4, f"a regime that feeds itself: {answers}"


@pytest.mark.parametrize("crowded", [True, False])
def test_a_rank_whose_spinning_is_in_vain_hardly_spins(crowded: bool) -> None:
    """For example because the rank that it waits for has no other core."""
    rank = Rank(crowded=crowded)
    spun = 0.0
    for _ in range(100 * RETRY):
        spun += max(waited for waited in (0.0, 90e-6, 0.4e-3, 0.9e-3) if not rank.sleeps_after(waited))
        rank.waits(5e-3)
    assert spun / (100 * RETRY) < (0.2e-3 if crowded else 0.3e-3)


def test_a_message_that_happens_to_come_soon_is_no_reason_to_spin() -> None:
    """The results of two workers may come one after the other, and then none for milliseconds."""
    rank, spun = Rank(crowded=True), 0
    for _ in range(20 * RETRY):
        assert not rank.waits(10e-6)
        spun += not rank.sleeps_after(0.4e-3)
        assert rank.waits(5e-3)
    assert spun <= 20 + 2
    rank.waits(10e-6)
    assert not rank.sleeps_after(0.4e-3), "it pays again"


@pytest.mark.parametrize("wakeup", [*WAKEUPS, 0.0, 1.0])
@pytest.mark.parametrize("crowded", [True, False])
def test_spinning_is_bounded_whatever_was_measured(wakeup: float, crowded: bool) -> None:
    rank = Rank(wakeup, crowded)
    assert MIN_WAKEUP < rank.waiter.longest_spin <= 16 * MAX_WAKEUP
    assert not rank.sleeps_after(0.99 * rank.waiter.longest_spin)
    assert rank.sleeps_after(1.01 * rank.waiter.longest_spin)


def test_ranks_that_outnumber_their_cores_spin_less() -> None:
    crowded, alone = Rank(crowded=True), Rank(crowded=False)
    assert crowded.waiter.longest_spin < alone.waiter.longest_spin


def test_a_rank_that_can_be_rung_looks_for_itself_now_and_then() -> None:
    rank = Rank()
    for waited in (5e-3, 1.0, 3600.0):
        assert rank.sleeps_after(waited)
    assert 0 < min(rank.wire.sleeps) <= max(rank.wire.sleeps) <= WORKER_DOORBELL_SLEEP
    assert not any(rank.clock.slept), "no naps"


def test_after_a_ring_a_rank_waits_awake_for_the_message() -> None:
    rank = Rank()
    rank.wire.rung = True
    assert rank.sleeps_after(1.0)
    assert not rank.sleeps_after(1.0)
    rank.clock.advance(rank.waiter.longest_spin)
    assert rank.sleeps_after(1.1), "but not for long"


def test_once_the_message_has_come_the_ring_does_not_keep_a_rank_awake() -> None:
    rank = Rank()
    for _ in range(2):
        rank.waits(0.05)
    rank.wire.rung = True
    assert rank.waits(0.05)
    assert rank.sleeps_after(0.2e-3), "spinning was in vain before"


def test_a_rank_that_nobody_rings_naps_longer_and_longer() -> None:
    rank = Rank(rings=False)
    for waited in (0.01, 0.1, 1.0, 10.0):
        rank.waiter.pause(waited)
    assert rank.clock.slept == sorted(rank.clock.slept)
    assert rank.clock.slept[-1] == MAX_SLEEP


@given(st.floats(0, 1e6))
def test_naps_are_short_beside_the_wait(waited: float) -> None:
    assert MIN_SLEEP <= nap_seconds(waited) <= max(MIN_SLEEP, waited / 100)
    assert nap_seconds(waited) <= MAX_SLEEP


def test_no_rank_sleeps_long_while_large_messages_move() -> None:
    rank = Rank()
    rank.wire.sending = 1
    assert not rank.sleeps_after(MOVING_SECONDS / 2)
    rank.waiter.pause(10.0)
    assert rank.clock.slept[-1] == MAX_SLEEP
    assert not rank.wire.sleeps, "nobody rings when there is room for more"


class Disturbed(Clock):
    """A machine on which a sleep takes as long as others let it."""

    def __init__(self, lengths: list[float]) -> None:
        super().__init__()
        self._lengths: Iterator[float] = iter(lengths)

    def sleep(self, seconds: float) -> None:
        self.advance(next(self._lengths))


def test_a_wake_up_is_measured_although_others_disturb() -> None:
    assert measure_wakeup(Disturbed([3e-3, 80e-6, 5.0, 70e-6, 1.0])) == pytest.approx(70e-6)
    assert measure_wakeup(Disturbed([3e-3] * 5)) == MAX_WAKEUP
