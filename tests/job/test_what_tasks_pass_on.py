"""What tasks do with the futures and the threads that they have: return, pass on and hand over."""

import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from taskfarm import Farm, task
from taskfarm.errors import DependencyFailed, UsageError


@task
def same(value: Any) -> Any:
    return value


@task
def fails(value: Any) -> Any:
    raise ValueError(f"no {value}")


@task
def waits_inside() -> Any:
    number = same.submit(1)
    return same.submit([number, 5]).result()


@task
def returns_what_it_asked_for() -> Any:
    future = waits_inside.submit()
    future.done()
    return [future]


@pytest.mark.parametrize("isolate", [False, True])
def test_a_future_that_was_asked_for(farm: Farm, isolate: bool) -> None:
    asks = returns_what_it_asked_for.options(isolate=isolate)
    assert [future.result() for future in [asks.submit() for _ in range(4)]] == [[[1, 5]]] * 4


@task
def with_replaced(how: str) -> Any:
    seven = fails.options(on_error=lambda error: 7).submit(1)
    given = fails.options(on_error="return").submit(2)
    if how == "alone":
        return seven
    if how == "inside":
        return {"seven": seven, "given": [given]}
    return same.submit([seven, given])


@pytest.mark.parametrize("how", ["alone", "inside", "argument"])
def test_on_error_of_a_future_that_is_passed_on(farm: Farm, how: str) -> None:
    found = farm.submit(with_replaced, how).result()
    expected = {"alone": "7", "inside": "{'seven': 7, 'given': [ValueError('no 2')]}"}
    assert repr(found) == expected.get(how, "[7, ValueError('no 2')]")


@task
def with_failed(how: str) -> Any:
    failed = fails.submit(3)
    assert isinstance(failed.exception(), ValueError)
    if how == "alone":
        return failed
    if how == "inside":
        return [same.submit(1), failed]
    return same.submit([failed])


@pytest.mark.parametrize("how", ["alone", "inside", "argument"])
def test_a_future_that_has_failed_before_it_is_passed_on(farm: Farm, how: str) -> None:
    error = farm.submit(with_failed, how).exception()
    assert isinstance(error, DependencyFailed)
    assert "with_failed has no result: " in str(error)
    assert str(error).endswith("ValueError: no 3")
    assert "fails(3)" in error.root
    assert repr(error.__cause__) == "ValueError('no 3')"
    assert "in fails" in str(error.__cause__.__cause__)


@task
def with_cancelled() -> Any:
    future = same.submit(1)
    assert future.cancel()
    return [future]


def test_a_future_that_was_cancelled(farm: Farm) -> None:
    with pytest.raises(CancelledError):
        farm.submit(with_cancelled).result()


REFUSED = "only the thread that runs a task can submit tasks and wait for them: let the task itself do that"

IN_A_THREAD = """
import sys, threading
from taskfarm import task, testing

@task
def same(value):
    return value

@task
def in_a_thread():
    texts = []
    def submit():
        try:
            texts.append(same.submit(1).result())
        except Exception as error:
            texts.append(str(error))
    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    return texts

if __name__ == "__main__":
    print(*in_a_thread.submit().result())
    with testing.farm(2):
        print(*in_a_thread.submit().result())
    print(*in_a_thread.options(isolate=True).submit().result())
"""


def test_threads_of_tasks_do_not_submit(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(IN_A_THREAD)
    words = [sys.executable, str(tmp_path / "job.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines() == [REFUSED] * 3, done.stderr


@task
def with_options() -> list[list[int]]:
    return [list(same.map([1, 2], priority=3)), list(task(pow).starmap([(2, 3)], order="longest"))]


def test_maps_of_tasks_take_the_options_of_maps(farm: Farm) -> None:
    assert farm.submit(with_options).result() == [[1, 2], [8]]


LEFT: list[Any] = []


@task
def leave() -> None:
    LEFT.append(same.submit(1))


@task
def find() -> Any:
    return LEFT.pop().result()


def test_a_future_of_a_task_that_has_ended() -> None:
    with Farm():
        leave.submit().result()
        with pytest.raises(UsageError, match="only in that task"):
            find.submit().result()
