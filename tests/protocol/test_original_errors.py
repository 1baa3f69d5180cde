"""What pickling raised stays in reach: our errors are of its type, too."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from taskfarm import Farm, testing
from taskfarm.errors import (
    CallNotLoadable,
    CallNotPicklable,
    ResultNotLoadable,
    ResultNotPicklable,
    TaskError,
    unmixed,
    wrap,
)


class Odd(Exception):
    """An exception whose constructor takes something else than a text."""

    def __init__(self, number: int, other: int) -> None:
        super().__init__(number, other)
        self.number = number


class Needs(UnicodeError):
    """One that C code has laid out."""


ERRORS = [ZeroDivisionError("x"), KeyError("x"), OSError(2, "x"), Odd(1, 2), Needs("x")]
STRANGE = [
    StopIteration(),
    SystemExit(3),
    UnicodeDecodeError("utf8", b"", 0, 1, ""),
    ExceptionGroup("x", ERRORS),
]
STRANGE += [pickle.PicklingError("x")]


def raises(error: BaseException) -> Any:
    raise error


class BadPickle:
    """Cannot be pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class BadUnpickle:
    """Cannot be unpickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return raises, (self.error,)


def identity(x: Any) -> None:
    return None


CASES: list[tuple[type[TaskError], Callable[[Farm, BaseException], Any]]] = [
    (CallNotPicklable, lambda farm, error: farm.submit(identity, BadPickle(error))),
    (CallNotLoadable, lambda farm, error: farm.submit(identity, BadUnpickle(error))),
    (ResultNotPicklable, lambda farm, error: farm.submit(BadPickle, error)),
    (ResultNotLoadable, lambda farm, error: farm.submit(BadUnpickle, error)),
]


@pytest.mark.parametrize(("kind", "submit"), CASES)
def test_the_original_type_is_in_reach(kind: type[TaskError], submit: Callable[..., Any]) -> None:
    with testing.farm(workers=1) as farm:
        for original in ERRORS:
            error = submit(farm, original).exception()
            assert isinstance(error, kind)
            assert isinstance(error, type(original))
            assert type(error).__name__ == kind.__name__
            assert "pickled" in str(error)
            assert farm.submit(abs, -3).result() == 3


def test_errors_that_cannot_be_mixed_in_leave_ours() -> None:
    for original in STRANGE:
        error = wrap(CallNotPicklable, original, "text")
        assert (str(error), error.__cause__) == ("text", original)
        assert not isinstance(error, StopIteration)
        assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_a_class_that_cannot_be_sent_leaves_our_error() -> None:
    class Local(Exception):
        lock = raises

    error = wrap(CallNotPicklable, Local(), "text")
    assert isinstance(error, Local)
    plain = unmixed(error)
    assert (type(plain), str(plain)) == (CallNotPicklable, "text")
    assert unmixed(ValueError()) is None
