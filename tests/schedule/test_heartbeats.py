"""Heartbeats, in virtual time: a worker that answers is never given up; a silent one is, in time."""

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.schedule.heartbeats import Heartbeats

LIMIT = 40.0


def test_silence_counts_from_the_first_unanswered_ping() -> None:
    heartbeats = Heartbeats([1, 2], 0.0)
    heartbeats.set_limits(LIMIT)
    heartbeats.ready(1)
    heartbeats.ready(2)
    lost: dict[int, float] = {}
    for tick in range(1, 12):
        now = 10.0 * tick
        assert heartbeats.due(now)
        ask, silent = heartbeats.check(now, lambda worker: LIMIT)
        lost |= silent
        for worker in silent:
            heartbeats.remove(worker)
        assert 1 in ask
        heartbeats.received(1)
        if lost:
            break
    assert set(lost) == {2}
    assert LIMIT < lost[2] <= 1.5 * LIMIT


def test_master_that_was_held_up_gives_nobody_up_for_it() -> None:
    heartbeats = Heartbeats([1], 0.0)
    heartbeats.set_limits(LIMIT)
    heartbeats.ready(1)
    heartbeats.check(10.0, lambda worker: LIMIT)
    _, silent = heartbeats.check(10_000.0, lambda worker: LIMIT)
    assert not silent


def test_worker_that_does_not_start_is_given_up() -> None:
    heartbeats = Heartbeats([1], 0.0)
    silent: dict[int, float] = {}
    now = 0.0
    while not silent and now < 1e4:
        now += heartbeats.interval
        _, silent = heartbeats.check(now, lambda worker: heartbeats.start_limit)
    assert heartbeats.start_limit < now <= heartbeats.start_limit + 2 * heartbeats.interval


@given(
    gaps=st.lists(st.floats(0.1, 15.0), min_size=1, max_size=60),
    delays=st.lists(st.floats(0.0, 25.0), min_size=60, max_size=60),
)
def test_who_answers_within_the_limit_is_never_given_up(gaps: list[float], delays: list[float]) -> None:
    heartbeats = Heartbeats([1], 0.0)
    heartbeats.set_limits(LIMIT)
    heartbeats.ready(1)
    now, answer = 0.0, None
    for gap, delay in zip(gaps, delays, strict=False):
        now += gap
        if answer is not None and now >= answer:
            heartbeats.received(1)
            answer = None
        if heartbeats.due(now):
            ask, silent = heartbeats.check(now, lambda worker: LIMIT)
            assert not silent
            if ask and answer is None:
                answer = now + delay
