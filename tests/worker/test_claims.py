"""Calls that one thread runs and another may take back."""

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.worker.claims import MAX_BLOCK_SECONDS, ClaimedCalls

SPANS = st.lists(st.one_of(st.floats(0, 1e-4), st.floats(1e-4, 1e-2), st.floats(0.1, 10)), min_size=1)


@given(st.integers(1, 5000), SPANS)
def test_every_call_is_claimed_once_however_long_it_takes(count: int, lasts: list[float]) -> None:
    share = ClaimedCalls(0, 0, count, 0.0)
    now, step, claimed = 0.0, 0, 0
    while block := share.claim_next(now := now + lasts[step % len(lasts)]):
        claimed += block
        step += 1
    assert claimed == share.claimed == share.end == count


@given(st.integers(1, 5000), SPANS, st.integers(0, 20))
def test_what_is_given_back_is_not_claimed(count: int, lasts: list[float], taken_after: int) -> None:
    share = ClaimedCalls(0, 0, count, 0.0)
    now, step, claimed, given_back = 0.0, 0, 0, 0
    while True:
        if step == taken_after:
            given_back = share.release_unstarted()
        block = share.claim_next(now := now + lasts[step % len(lasts)])
        if not block:
            break
        claimed += block
        step += 1
    if step >= taken_after:
        assert claimed + given_back == count
    assert claimed == share.end


def test_a_call_that_lasts_long_holds_up_no_other() -> None:
    share = ClaimedCalls(0, 0, 1000, 0.0)
    now = 0.0
    for _ in range(4):
        assert share.claim_next(now := now + 10 * MAX_BLOCK_SECONDS) == 1
    assert share.release_unstarted() == 996


def test_short_calls_are_claimed_in_blocks_that_grow() -> None:
    share = ClaimedCalls(0, 0, 100_000, 0.0)
    blocks = 0
    now = 0.0
    while share.claim_next(now := now + 1e-5):
        blocks += 1
    assert blocks < 10
