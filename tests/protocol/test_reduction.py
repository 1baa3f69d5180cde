"""The tree of a reduction is the same however its leaves arrive, and it keeps their order."""

import operator
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.protocol.reduction import Reduction


def bracket(left: str, right: str) -> str:
    return f"({left} {right})"


def whole(values: list[Any], operation: Any = bracket) -> Any:
    reduction = Reduction(operation)
    reduction.extend(0, list(values))
    return reduction.result()


def test_the_tree_by_hand() -> None:
    assert whole(["a"]) == "a"
    assert whole(["a", "b", "c"]) == "((a b) c)"
    assert whole(list("abcdefg")) == "(((a b) (c d)) ((e f) g))"


@settings(deadline=None, max_examples=200)
@given(count=st.integers(1, 200), cuts=st.sets(st.integers(1, 199)), seed=st.integers(0, 1000))
def test_any_batches_in_any_order_make_the_same_tree(count: int, cuts: set[int], seed: int) -> None:
    leaves = list(map(str, range(count)))
    bounds = [0, *sorted(cut for cut in cuts if cut < count), count]
    batches = list(pairwise(bounds))
    Random(seed).shuffle(batches)
    together = Reduction(bracket)
    for start, stop in batches:
        batch = Reduction(bracket)
        batch.extend(start, leaves[start:stop])
        nodes = list(batch.nodes())
        assert len(nodes) <= 2 * max(1, (stop - start).bit_length())
        assert sum(size for _, size, _ in nodes) == stop - start
        for first, size, value in nodes:
            together.add(first, size, value)
    assert together.result() == whole(leaves)


def test_after_an_error_all_values_are_there() -> None:
    def fails(left: int, right: int) -> int:
        if right >= 40:
            raise ValueError
        return left + right

    reduction = Reduction(fails)
    with pytest.raises(ValueError):  # noqa: PT011
        reduction.extend(3, list(range(100)))
    nodes = list(reduction.nodes())
    assert [first + size for first, size, _ in nodes] == [*[first for first, _, _ in nodes[1:]], 103]
    assert sum(value for _, _, value in nodes) == sum(range(100))


def test_a_ufunc_writes_into_its_own_arrays_only() -> None:
    leaves = [np.full(3, float(n)) for n in range(9)]
    assert whole(leaves, np.add).tolist() == [36.0] * 3
    assert [leaf[0] for leaf in leaves] == list(range(9))
    whole_numbers = [np.full(3, n + 1) for n in range(5)]
    divided = whole(whole_numbers, np.divide)
    assert divided.dtype == float
    assert divided.tolist() == whole(whole_numbers, operator.truediv).tolist()
    mixed = [np.zeros(3), np.zeros((2, 3)), np.ones(3), 5.0]
    assert whole(mixed, np.add).tolist() == [[6.0] * 3] * 2
