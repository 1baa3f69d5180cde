"""The function table: what a function means at the moment of the call, sent once."""

import functools
import math
from typing import Any

import pytest

from taskfarm.errors import CallNotPicklable
from taskfarm.protocol.functions import MAX_BYTES, MAX_CACHED, FunctionTable, name_of
from taskfarm.protocol.serialize import loads

FACTOR = 2


def times(x: int) -> int:
    return FACTOR * x


def lookup(table: FunctionTable, function: Any) -> Any:
    return loads(table.register(function).blob)


def test_same_function_same_id() -> None:
    table = FunctionTable()
    assert table.register(math.sin).id == table.register(math.sin).id
    assert table.register(math.sin).id != table.register(math.cos).id


def test_equal_lambdas_made_anew_share_an_id() -> None:
    table = FunctionTable()
    assert len({table.register(lambda x: x + 1).id for _ in range(5)}) == 1


def test_closure_that_changes_is_another_function() -> None:
    table = FunctionTable()
    offset = 1

    def add(x: int) -> int:
        return x + offset

    first = table.register(add)
    offset = 5
    second = table.register(add)
    assert first.id != second.id
    assert (loads(first.blob)(1), loads(second.blob)(1)) == (2, 6)


def test_list_in_a_closure_that_changes() -> None:
    table = FunctionTable()
    values = [1]

    def total() -> int:
        return sum(values)

    assert lookup(table, total)() == 1
    values.append(2)
    assert lookup(table, total)() == 3


def test_bound_method_whose_object_changes() -> None:
    class Line:
        slope = 1

        def at(self, x: int) -> int:
            return self.slope * x

    table = FunctionTable()
    line = Line()
    assert lookup(table, line.at)(3) == 3
    line.slope = 4
    assert lookup(table, line.at)(3) == 12


def test_partial() -> None:
    table = FunctionTable()
    assert lookup(table, functools.partial(pow, 2))(5) == 32
    assert name_of(functools.partial(times, 2)) == "times"


def test_what_cannot_be_pickled_says_what_to_do() -> None:
    generator = (i for i in ())

    def uses() -> object:
        return generator

    with pytest.raises(CallNotPicklable, match="inside the task or in the farm's initializer"):
        FunctionTable().register(uses)


def test_table_stays_bounded_and_keeps_what_is_in_use() -> None:
    table = FunctionTable()
    kept = table.register(times)
    kept.users += 1
    for i in range(3 * MAX_CACHED):
        table.register(functools.partial(times, i))
    assert kept.id not in table.forgotten
    assert table.register(times) is kept
    assert len(table.forgotten) > MAX_CACHED


def test_functions_with_data_are_kept_by_their_size() -> None:
    table = FunctionTable()
    kept = table.register(functools.partial(len, bytes(MAX_BYTES)))
    kept.users += 1
    for i in range(50):
        table.register(functools.partial(pow, i, bytes(MAX_BYTES // 8)))
    assert kept.id not in table.forgotten
    assert len(table.forgotten) > 40
