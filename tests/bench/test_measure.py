"""The measurements check what they time, and their figures have the right sign and size."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from taskfarm import testing
from taskfarm.bench import command, measure


class Serial:
    """An executor that runs everything at once, here."""

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        value = fn(*args)

        class Done:
            def result(_: Any) -> Any:
                return None if self.wrong else value

        return Done()

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        values = [fn(item) for item in items]
        return iter(values[::-1] if self.wrong else values)


MEASUREMENTS: dict[str, Callable[[Any], float]] = {
    "submits": lambda e: measure.submits(e, 20),
    "mapped": lambda e: measure.mapped(e, 20),
    "round trips": lambda e: measure.round_trips(e, 3)[0],
    "arrays one by one": lambda e: measure.arrays(e, 800, 4, one_by_one=True),
    "arrays": lambda e: measure.arrays(e, 800, 4, one_by_one=False),
    "irregular": lambda e: measure.irregular(e, 1, count=10, mean=1e-5),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measures_a_farm(name: str) -> None:
    with testing.farm(workers=2) as farm:
        figure = MEASUREMENTS[name](farm)
    assert figure > 0
    assert math.isfinite(figure)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_wrong_results_are_no_figure(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        MEASUREMENTS[name](Serial(wrong=True))


GROWTH = """
from taskfarm import testing
from taskfarm.bench import measure
from tests.bench.test_measure import Serial

print(measure.memory_growth(Serial(), 300_000))
with testing.farm() as farm:
    print(measure.memory_growth(farm, 20_000))
"""


def test_an_executor_that_draws_everything_grows() -> None:
    # In a process of its own: another one may have memory left from before.
    words = [sys.executable, "-c", GROWTH]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=True)
    everything, window = map(float, done.stdout.split())
    assert everything > 2
    assert window < 30


@pytest.mark.parametrize(
    ("overhead", "lowest", "highest"),
    [(50e-6, 45e-6, 60e-6), (0.0, measure.SHORTEST, measure.SHORTEST), (10.0, math.inf, math.inf)],
)
def test_the_shortest_efficient_tasks_are_found(
    monkeypatch: pytest.MonkeyPatch, overhead: float, lowest: float, highest: float
) -> None:
    def efficiency(executor: Any, workers: int, duration: float, *_: object) -> float:
        return duration / (duration + overhead)

    monkeypatch.setattr(measure, "efficiency", efficiency)
    assert lowest <= measure.metg(Serial(), 1) <= highest


def test_idle_is_a_share_of_a_core() -> None:
    assert 0 <= measure.idle(Serial(), 1, seconds=0.01) < 2


def test_fitting_stays_within_bounds() -> None:
    assert measure.fitting(1e9, 1.0, most=100) == 100
    assert measure.fitting(1e-9, 1.0, most=100, least=7) == 7
    assert measure.fitting(50.0, 1.0, most=100) == 50


@pytest.mark.parametrize("shortest", [0.2, 30.0, 5_000.0, math.inf])
def test_the_meaning_is_explained_in_sentences(shortest: float) -> None:
    found = dict.fromkeys(command.ROWS, 123.0) | {"metg_us": shortest, "idle_cpu_s_per_worker_and_s": 0.004}
    found |= {"ranks": 16, "workers": 15, "hosts": 1, "cores": 8}
    lines = command.explain(found)
    assert lines[0].startswith("On these 16 ranks ")
    assert "share 8 cores" in lines[-1]
    assert "inf" not in " ".join(lines)
