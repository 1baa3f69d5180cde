"""What messages say about failures: the call in words, hints, folded frames; equal ones are counted."""

import sys
import traceback
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm import testing
from taskfarm.errors import CommandFailed
from taskfarm.protocol import describe
from taskfarm.protocol.failures import format_exception
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.shell.execute import Ended
from taskfarm.transport.waiting import CLOCK
from taskfarm.views.failure_causes import FailureCauses
from tests.views.recorded import ran, registered


class Nasty:
    """Its text cannot be made."""

    def __repr__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        ((1, "a"), {"b": 2.5}, "f(1, 'a', b=2.5)"),
        ((numpy.zeros((300, 20)),), {}, "f(ndarray(shape=(300, 20), dtype=float64))"),
        ((list(range(1000)),), {}, "f([0, 1, 2, 3, 4, 5, ...])"),
        ((Nasty(),), {}, "f(<Nasty>)"),
        ((), {}, "f()"),
    ],
)
def test_a_call_in_words(arguments: Any, keywords: Any, text: str) -> None:
    assert describe.describe_call("f", arguments, keywords) == text


@given(st.recursive(st.none() | st.text() | st.integers() | st.binary(), st.lists), st.integers(0, 20))
def test_a_call_is_one_short_line(value: Any, count: int) -> None:
    text = describe.describe_call("f", [value] * count, {})
    assert len(text) <= 200
    assert "\n" not in text


def test_hints(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError) as module:
        __import__("no_such_module")
    assert "'no_such_module'" in describe.hint(module.value)
    assert sys.path[-1] in describe.hint(module.value)
    with pytest.raises(FileNotFoundError) as file:
        Path("missing.txt").read_text()
    assert f"'missing.txt' was looked for in {tmp_path}" in describe.hint(file.value)
    assert describe.hint(FileNotFoundError(2, "no", "/absolute")) == ""
    assert describe.hint(ValueError()) == ""


def fails(value: Any, factor: int = 1) -> None:
    raise ValueError(f"no {value}")


def opens(path: str) -> None:
    Path(path).read_text()


def test_the_error_of_a_task_says_which_call() -> None:
    with testing.farm(workers=1) as farm:
        error = farm.submit(fails, [1, 2], factor=3).exception()
        missing = farm.submit(opens, "not/there").exception()
    assert error is not None
    assert missing is not None
    assert error.__notes__[0].startswith("task 0 fails([1, 2], factor=3) on rank 1 (")
    assert str(error) == "no [1, 2]"
    assert "was looked for in" in missing.__notes__[0]
    text = "".join(traceback.format_exception(error))
    assert text.splitlines()[-1].startswith("task 0 fails([1, 2], factor=3) on rank 1 (")


def test_frames_of_the_farm_are_folded() -> None:
    with testing.farm(workers=1) as farm, pytest.raises(ValueError, match="no 1") as raised:
        list(farm.map(fails, [1]))
    text = format_exception(raised.value)
    assert "of taskfarm]" in text
    assert "mapping.py" not in text
    assert 'raise ValueError(f"no {value}")' in text
    assert "list(farm.map(fails, [1]))" in text


def test_a_fault_of_the_farms_own_is_shown() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    with pytest.raises(ValueError, match="already been added") as raised:
        scheduler.add_worker(1)
    error = raised.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    assert "scheduler.py" in format_exception(error)


def test_chains_and_groups_are_folded() -> None:
    def loop() -> None:
        try:
            raise KeyError(1)
        except KeyError as error:
            raise ExceptionGroup("both", [ValueError(2), error]) from error

    with pytest.raises(ExceptionGroup) as raised:
        loop()
    text = format_exception(raised.value)
    assert "KeyError: 1" in text
    assert "ValueError: 2" in text


def test_equal_failures_are_counted() -> None:
    causes = FailureCauses()
    farm = testing.farm(workers=3, clock=CLOCK)
    farm._master.outstanding.events.add(causes)
    with farm:
        for future in [farm.submit(fails, number) for number in range(500)]:
            assert future.exception() is not None
        assert farm.submit(opens, "not/there").exception() is not None
    farm._master.outstanding.events.flush()
    many, one = causes.all
    assert (many.count, many.name, many.summary[:15]) == (500, "fails", "ValueError: no ")
    assert many.place.startswith("tests/views/test_failure_causes.py:")
    assert "raise ValueError" in many.trace
    assert (one.count, one.name) == (1, "opens")
    lines = causes.text().splitlines()
    assert lines[0].startswith("500 failed: fails at tests/views/test_failure_causes.py:")
    assert lines[1].startswith(f"    first: task {many.first} fails({many.first}) on rank ")
    assert [found["count"] for found in causes.figures()] == [500, 1]


def test_retries_and_failures_on_the_master() -> None:
    causes = FailureCauses()
    causes.calls_finished(ran(1.0, count=3, failures={0: ValueError(1), 2: ValueError(2)}, again=[2]))
    causes.tasks_failed(2.0, registered(), 7, 4, RuntimeError("gone"))
    assert [(c.summary, c.count, c.retried, c.worker) for c in causes.all] == [
        ("RuntimeError: gone", 4, 0, 0),
        ("ValueError: 1", 1, 1, 1),
    ]
    assert "1 failed, 1 retried: work: ValueError: 1" in causes.text()


def test_kinds_are_bounded() -> None:
    causes = FailureCauses()
    for number in range(2000):
        causes.calls_finished(ran(1.0, f"function{number}", failures={0: ValueError()}))
    assert len(causes.all) <= 501
    assert sum(cause.count for cause in causes.all) == 2000
    assert len(causes.text().splitlines()) < 20


def test_commands_are_told_apart_by_how_they_ended() -> None:
    causes = FailureCauses()
    for code, signal in ((2, 0), (0, 9), (2, 0)):
        ended = Ended(code, signal, 0.0, 1.0, "h", 1, b"", b"")
        error = CommandFailed(f"`a` {ended.words()}", ended)
        causes.calls_finished(ran(1.0, "command", failures={0: error}))
    assert [(cause.count, cause.summary) for cause in causes.all] == [
        (2, "CommandFailed: `a` exited with code 2"),
        (1, "CommandFailed: `a` was ended by signal 9"),
    ]
    # One that a job has made itself is a failure like any other.
    causes.calls_finished(ran(1.0, failures={0: CommandFailed("mine")}))
    assert causes.all[-1].summary == "CommandFailed: mine"
