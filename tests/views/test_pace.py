"""How fast tasks end, and how much time is left."""

from types import SimpleNamespace
from typing import Any

import pytest

from taskfarm.master.map_progress import MapProgress
from taskfarm.schedule.batching import Estimate
from taskfarm.schedule.spans import Span
from taskfarm.views.pace import Pace
from tests.views.recorded import registered
from tests.views.test_progress_bar import Farm


def go_on(farm: Any, pace: Pace, seconds: float, rate: float) -> None:
    """Let the farm work at a rate for some time; 0: the job pauses, and nothing is queued."""
    for _ in range(round(seconds * 10)):
        farm.clock.advance(0.1)
        ended = farm.now.done + rate * 0.1
        farm.now = farm.now._replace(done=ended, queued=1000 if rate else 0)
        pace(farm.clock.now())


def test_the_rate_is_a_recent_one_and_a_pause_does_not_count() -> None:
    farm: Any = Farm(queued=1000)
    pace = Pace(farm)
    pace(0.0)
    go_on(farm, pace, 100, 1)
    assert pace.rate == pytest.approx(1, rel=0.05)
    go_on(farm, pace, 600, 0)
    assert pace.rate == pytest.approx(1, rel=0.05)
    go_on(farm, pace, 60, 20)
    assert pace.rate == pytest.approx(20, rel=0.05)
    assert pace.seconds_left == pytest.approx(50, rel=0.05)


def test_the_end_of_a_generator_is_not_guessed() -> None:
    farm: Any = Farm(queued=640)
    farm.maps = {MapProgress("draws", None, ended=360, drawn=1000)}
    pace = Pace(farm)
    pace(0.0)
    go_on(farm, pace, 10, 36)
    assert pace.total is None
    assert pace.seconds_left is None


def test_nothing_is_known_before_the_first_task_has_ended() -> None:
    pace = Pace(Farm(queued=5))  # type: ignore[arg-type]
    assert (pace.rate, pace.total, pace.seconds_left, pace.long_call) == (0.0, 5, None, None)


def test_a_call_that_takes_unusually_long_is_named() -> None:
    farm: Any = Farm(assigned=1)
    farm.running = lambda: [(1, Span(7, 7, 1, 3), 0.0)]
    farm.estimate = lambda function: Estimate(seconds=1.375)
    farm.outstanding = SimpleNamespace(
        pending=SimpleNamespace(function_of=lambda span: registered("solve"))
    )
    pace = Pace(farm)
    farm.clock.advance(5.0)
    assert pace.long_call is None
    farm.clock.advance(50.0)
    assert str(pace.long_call) == "task 7 has run for 55 s, 40 times the mean"
