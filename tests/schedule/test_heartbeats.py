"""Signs of life, in virtual time: who answers is never given up, and who does not is, in time."""

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.schedule.heartbeats import Heartbeats

LIMIT = 40.0


def test_silence_is_counted_from_the_first_question() -> None:
    pulse = Heartbeats([1, 2], 0.0)
    pulse.set_limits(LIMIT)
    pulse.ready(1)
    pulse.ready(2)
    lost: dict[int, float] = {}
    for tick in range(1, 12):
        now = 10.0 * tick
        assert pulse.due(now)
        ask, silent = pulse.check(now, lambda worker: LIMIT)
        lost |= silent
        for worker in silent:
            pulse.remove(worker)
        assert 1 in ask
        pulse.received(1)
        if lost:
            break
    assert set(lost) == {2}
    assert LIMIT < lost[2] <= 1.5 * LIMIT


def test_master_that_was_held_up_gives_nobody_up_for_it() -> None:
    pulse = Heartbeats([1], 0.0)
    pulse.set_limits(LIMIT)
    pulse.ready(1)
    pulse.check(10.0, lambda worker: LIMIT)
    _, silent = pulse.check(10_000.0, lambda worker: LIMIT)
    assert not silent


def test_worker_that_does_not_start_is_given_up() -> None:
    pulse = Heartbeats([1], 0.0)
    silent: dict[int, float] = {}
    now = 0.0
    while not silent and now < 1e4:
        now += pulse.interval
        _, silent = pulse.check(now, lambda worker: pulse.start_limit)
    assert pulse.start_limit < now <= pulse.start_limit + 2 * pulse.interval


@given(
    gaps=st.lists(st.floats(0.1, 15.0), min_size=1, max_size=60),
    delays=st.lists(st.floats(0.0, 25.0), min_size=60, max_size=60),
)
def test_who_answers_within_the_limit_is_never_given_up(gaps: list[float], delays: list[float]) -> None:
    pulse = Heartbeats([1], 0.0)
    pulse.set_limits(LIMIT)
    pulse.ready(1)
    now, answer = 0.0, None
    for gap, delay in zip(gaps, delays, strict=False):
        now += gap
        if answer is not None and now >= answer:
            pulse.received(1)
            answer = None
        if pulse.due(now):
            ask, silent = pulse.check(now, lambda worker: LIMIT)
            assert not silent
            if ask and answer is None:
                answer = now + delay
