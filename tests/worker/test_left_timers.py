"""Timers that tasks leave running in the job's own process, as in a run with one rank."""

import signal
import time
from collections.abc import Iterator

import pytest

from taskfarm import Farm


def late(*_: object) -> None:
    raise TimeoutError("too late")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGALRM, before)


def leaves(seconds: float) -> float:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return seconds


def outlasts(seconds: float) -> str:
    signal.setitimer(signal.ITIMER_REAL, seconds / 2)
    try:
        time.sleep(seconds)
    except TimeoutError:
        return "interrupted"
    return "not interrupted"


def test_a_timer_of_a_task_ends_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    with Farm() as farm:
        assert list(farm.map(leaves, [0.05] * 3)) == [0.05] * 3
        time.sleep(0.1)
        assert farm.submit(outlasts, 0.1).result() == "interrupted"
        assert list(farm.map(leaves, [0.05] * 3)) == [0.05] * 3
    time.sleep(0.1)
    line = "left ITIMER_REAL running; it was switched off after the task"
    assert capfd.readouterr().err.count(line) == 1


def test_a_timer_of_the_job_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    signal.setitimer(signal.ITIMER_PROF, 3600)
    with Farm() as farm:
        assert farm.submit(leaves, 3600.0).result() == 3600
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        signal.setitimer(signal.ITIMER_REAL, 3600)
        assert farm.submit(abs, -1).result() == 1
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
