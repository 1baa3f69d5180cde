"""Bytes and back: messages, pickles, arguments, results, exceptions."""

import pickle
import traceback
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.errors import CallNotPicklable, ExceptionNotPicklable, RemoteTraceback, ResultNotLoadable
from taskfarm.protocol import messages
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import capture_exception, restore_exception, summarize
from taskfarm.protocol.messages import IN_BAND, Blob, Failure, Outcomes
from taskfarm.protocol.outcomes import load_outcomes
from taskfarm.protocol.serialize import dump_plain, dumps, load_plain, loads, nbytes, plain_nbytes

PLAIN = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.binary())
BLOBS = st.builds(Blob, st.binary(), st.just([]))
FAILURES = st.builds(Failure, BLOBS, st.text(), st.text())
IDS = st.integers(0, 2**60)
PARTS = st.builds(messages.Part, IDS, IDS, IDS, IDS, st.one_of(st.binary(), st.lists(BLOBS)))
OUTCOMES = st.builds(
    messages.Outcomes,
    IDS,
    IDS,
    IDS,
    st.one_of(st.binary(), st.lists(BLOBS)),
    st.dictionaries(IDS, FAILURES),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
MESSAGES = st.one_of(
    st.builds(messages.Define, IDS, st.text(), BLOBS, st.lists(IDS)),
    st.builds(messages.Work, st.lists(PARTS)),
    st.builds(messages.Initialize, IDS, st.lists(st.text()), st.one_of(st.none(), BLOBS)),
    st.builds(messages.Stop),
    st.builds(messages.Hello, st.text(), st.text(), st.text(), IDS),
    st.builds(messages.Ready, IDS, st.one_of(st.none(), FAILURES)),
    st.builds(messages.Results, st.lists(OUTCOMES)),
    st.builds(messages.Goodbye, IDS),
)


@given(MESSAGES)
def test_message_round_trip(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_every_message_has_a_tag_of_its_own() -> None:
    assert len(messages.TAGS) == len(messages.CLASSES)


@given(st.lists(PLAIN, min_size=1))
def test_plain_values_share_a_pickle(values: list[Any]) -> None:
    assert plain_nbytes(values) is not None
    assert repr(load_plain(dump_plain(values))) == repr(values)


@pytest.mark.parametrize("value", [[1], (1,), {}, object(), np.zeros(2), print, type("Int", (int,), {})(1)])
def test_what_may_change_or_fail_is_not_plain(value: object) -> None:
    assert plain_nbytes([1, value]) is None


def test_numpy_scalars_are_plain() -> None:
    assert plain_nbytes([np.float64(1.5), np.int32(2), np.bool_(True)]) is not None


@pytest.mark.parametrize("size", [0, 1, IN_BAND - 1, IN_BAND, 10 * IN_BAND])
def test_large_arrays_travel_beside_the_pickle(size: int) -> None:
    array = np.arange(size, dtype=np.uint8)
    blob = dumps({"a": array})
    assert len(blob.buffers) == (size >= IN_BAND)
    assert nbytes(blob) >= size
    if blob.buffers:
        assert np.shares_memory(np.asarray(blob.buffers[0].raw()), array)
        assert len(blob.data) < 1000
    assert np.array_equal(loads(blob)["a"], array)


def test_array_that_is_not_contiguous_keeps_its_values() -> None:
    array = np.arange(200_000.0).reshape(400, 500)[::2, ::3]
    assert np.array_equal(loads(dumps(array)), array)


def test_code_sent_by_value_keeps_its_file() -> None:
    function = loads(dumps(lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError) as caught:
        function()
    assert traceback.extract_tb(caught.tb)[-1].filename == __file__


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


class Unloadable:
    """Pickles, but cannot be made again."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_result_that_cannot_be_loaded_fails_alone() -> None:
    completed = load_outcomes(Outcomes(5, 5, 3, [dumps(1), dumps(Unloadable()), dumps([3])], {}, 0.1))
    assert completed.values == [1, None, [3]]
    assert isinstance(completed.failures[1], ResultNotLoadable)
    assert "the result of task 6" in str(completed.failures[1])


class TwoArguments(Exception):
    """An exception whose pickle cannot be loaded: its args are not those of its __init__."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class NoText(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_exception_keeps_type_arguments_and_trace() -> None:
    try:
        {}["key"]
    except KeyError as error:
        failure = capture_exception(error, "task 3 f on rank 2 (node)")
    restored = restore_exception(pickle.loads(pickle.dumps(failure)))
    assert isinstance(restored, KeyError)
    assert restored.args == ("key",)
    assert isinstance(restored.__cause__, RemoteTraceback)
    text = str(restored.__cause__)
    assert "task 3 f on rank 2 (node)" in text
    assert '{}["key"]' in text


@pytest.mark.parametrize("error", [TwoArguments(1, 2), NoText(), ValueError(lambda: (yield))])
def test_no_exception_is_too_odd_to_travel(error: Exception) -> None:
    restored = restore_exception(capture_exception(error, "here"))
    assert isinstance(restored, ExceptionNotPicklable | type(error))
    assert isinstance(restored, type(error)) or type(error).__name__ in str(restored)


def test_summary_is_one_line() -> None:
    assert summarize(ValueError("a\n  b")) == "ValueError: a b"
    assert summarize(ValueError()) == "ValueError"
    assert "could not be made" in summarize(NoText())


def test_failure_that_cannot_be_loaded_here_says_so() -> None:
    restored = restore_exception(Failure(Blob(b"junk", []), "Odd: error", "trace"))
    assert isinstance(restored, ExceptionNotPicklable)
    assert "Odd: error" in str(restored)
