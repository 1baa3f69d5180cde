"""Calls that one thread runs and another may release."""

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.worker.claims import MAX_BLOCK_SECONDS, ClaimedCalls

SPANS = st.lists(st.one_of(st.floats(0, 1e-4), st.floats(1e-4, 1e-2), st.floats(0.1, 10)), min_size=1)


@given(st.integers(1, 5000), SPANS)
def test_every_call_is_claimed_once_however_long_it_takes(count: int, lasts: list[float]) -> None:
    claims = ClaimedCalls(0, 0, count, 0.0)
    now, step, claimed = 0.0, 0, 0
    while block := claims.claim_next(now := now + lasts[step % len(lasts)]):
        claimed += block
        step += 1
    assert claimed == claims.claimed == claims.end == count


@given(st.integers(1, 5000), SPANS, st.integers(0, 20))
def test_released_calls_are_not_claimed(count: int, lasts: list[float], taken_after: int) -> None:
    claims = ClaimedCalls(0, 0, count, 0.0)
    now, step, claimed, released = 0.0, 0, 0, 0
    while True:
        if step == taken_after:
            released = claims.release_unstarted()
        block = claims.claim_next(now := now + lasts[step % len(lasts)])
        if not block:
            break
        claimed += block
        step += 1
    if step >= taken_after:
        assert claimed + released == count
    assert claimed == claims.end


def test_a_call_that_lasts_long_holds_up_no_other() -> None:
    claims = ClaimedCalls(0, 0, 1000, 0.0)
    now = 0.0
    for _ in range(4):
        assert claims.claim_next(now := now + 10 * MAX_BLOCK_SECONDS) == 1
    assert claims.release_unstarted() == 996


def test_short_calls_are_claimed_in_blocks_that_grow() -> None:
    claims = ClaimedCalls(0, 0, 100_000, 0.0)
    blocks = 0
    now = 0.0
    while claims.claim_next(now := now + 1e-5):
        blocks += 1
    assert blocks < 10
