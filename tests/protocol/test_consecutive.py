"""Numbers are told in runs of consecutive ones."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.protocol.consecutive import runs


@given(st.sets(st.integers(0, 40)))
def test_runs_are_the_numbers_and_do_not_touch(numbers: set[int]) -> None:
    found = list(runs(sorted(numbers)))
    assert [number for run in found for number in run] == sorted(numbers)
    assert all(run for run in found)
    assert all(before.stop < after.start for before, after in pairwise(found))
