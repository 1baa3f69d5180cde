"""Arguments can be sliced as batches need it; a call that cannot be pickled fails alone."""

from typing import Any

from taskfarm.errors import CallNotPicklable
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.serialize import load_plain, loads


def test_arguments_are_cut_into_any_slices() -> None:
    for rows in ([(i, str(i)) for i in range(20)], [(i, [i]) for i in range(20)]):
        arguments = Arguments.from_rows(rows)
        assert arguments.count == 20
        seen: list[Any] = []
        for offset, count in ((0, 3), (3, 16), (19, 1)):
            calls = arguments.slice(offset, count)
            if isinstance(calls, bytes):
                seen += zip(*load_plain(calls), strict=True)
            else:
                seen += [loads(blob)[0] for blob in calls]
        assert seen == rows


def test_argument_that_cannot_be_pickled_is_named_by_its_place() -> None:
    arguments = Arguments.from_columns([[1, (i for i in ()), 3]])
    assert list(arguments.errors) == [1]
    assert isinstance(arguments.errors[1], CallNotPicklable)


def test_rows_of_different_lengths() -> None:
    calls = Arguments.from_rows([(1,), (1, 2), ()]).slice(0, 3)
    assert not isinstance(calls, bytes)
    assert [loads(blob) for blob in calls] == [((1,), {}), ((1, 2), {}), ((), {})]
