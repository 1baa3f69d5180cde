"""Many numbers are recognized by their pickle, which must tell them from everything else."""

import enum
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.protocol.serialize import MANY, NUMBER_BYTES, dump_if_plain, load_plain, plain_nbytes

NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())


class Color(enum.IntEnum):
    RED = 1


class Whole(int):
    pass


def outcomes(*_: Any) -> Any:
    raise AssertionError("code of users was called")


class Spy:
    __reduce__ = __reduce_ex__ = outcomes  # type: ignore[assignment]


def recursive() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def deep() -> list[Any]:
    items: list[Any] = []
    for _ in range(100_000):
        items = [items]
    return items


NOT_PLAIN = [
    *([], {}, set(), (1,), [1], recursive(), bytearray(b"1"), frozenset(), int, len, outcomes, Ellipsis),
    *(Color.RED, Whole(3), object(), Spy(), pickle.PickleBuffer(b"1"), np.arange(3), range(3)),
]


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_numbers_come_back_with_their_types(few: list[Any]) -> None:
    values = few * MANY
    for column in (values, tuple(values)):
        data = dump_if_plain(column)
        assert data is not None
        loaded = load_plain(data)
        assert loaded == column
        assert [*map(type, loaded)] == [*map(type, values)]
        assert plain_nbytes(column) == NUMBER_BYTES


@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_value_that_may_change_is_found_among_many_numbers(place: int) -> None:
    for value in [*NOT_PLAIN, deep()]:
        values: list[Any] = [1.5, 2, None] * MANY
        values[place] = value
        assert plain_nbytes(values) is None, value
        assert dump_if_plain(values) is None, value


def test_texts_and_numbers_of_numpy_are_plain_among_many_numbers_too() -> None:
    values = [*range(MANY), "text", b"bytes", 1j, np.float64(1.5), True]
    data = dump_if_plain(values)
    assert data is not None
    assert [*map(type, load_plain(data))] == [*map(type, values)]
    assert plain_nbytes(values) == NUMBER_BYTES + 5
