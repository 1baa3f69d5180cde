"""Exceptions travel with their type, arguments and traceback, however odd they are."""

import pickle

import pytest

from taskfarm.errors import ExceptionNotPicklable, RemoteTraceback
from taskfarm.protocol.failures import capture_exception, restore_exception, summarize
from taskfarm.protocol.messages import Blob, Failure


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
    assert "could not be formatted" in summarize(NoText())


def test_failure_that_cannot_be_loaded_here_says_so() -> None:
    restored = restore_exception(Failure(Blob(b"junk", []), "Odd: error", "trace"))
    assert isinstance(restored, ExceptionNotPicklable)
    assert "Odd: error" in str(restored)
