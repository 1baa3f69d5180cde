"""What a resumed run takes from the journal of calls that refer to futures."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskfarm import Farm, rng, task
from tests.journal.test_stale_results import run


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return str(tmp_path / "run.db")


def note(name: str) -> None:
    """Note a call in a file: a global would be a part of the function's code."""
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{name}\n")


def load(n: int) -> list[int]:
    note("load")
    return [n]


def total(*values: Any) -> Any:
    note("total")
    return sum(value[0] if isinstance(value, list) else value for value in values)


def draw() -> float:
    note("draw")
    return float(rng().random())


def fragile(n: int) -> int:
    note("fragile")
    if "BROKEN" in os.environ:
        raise ValueError(n)
    return n


def count(value: Any) -> str:
    note("count")
    return type(value).__name__


def graph(farm: Farm, function: Any, items: list[int]) -> list[Any]:
    loaded = [farm.submit(function, n) for n in items]
    both = farm.submit(total, loaded[0], loaded[1])
    mapped = list(farm.map(partial(total, both), [loaded[0], 7]))
    drawn = farm.submit(draw)
    doubled = farm.submit(total, drawn, drawn)
    careful = farm.submit(task(fragile, on_error="return"), 1)
    named = farm.submit(count, careful)
    again = farm.submit(total, 1, farm.submit(len, farm.submit(count, named)))
    assert doubled.result() == 2 * drawn.result()
    return [both.result(), *mapped, named.result(), again.result()]


def resumed(path: str, items: list[int], seed: int) -> tuple[list[Any], list[str]]:
    """The results of a run that resumes, and which functions it has called."""
    calls = Path(os.environ["CALLS"])
    calls.write_text("")
    found = run(path, load, items, graph, seed=seed)
    return found, sorted(set(calls.read_text().split()))


def test_a_call_is_restored_only_with_all_that_it_needs(path: str) -> None:
    expected = [3, 4, 10, "int", 4]
    found, called = resumed(path, [1, 2], 1)
    assert (found, len(called)) == (expected, 5)
    assert resumed(path, [1, 2], 1) == (expected, [])
    assert resumed(path, [1, 2], 2) == (expected, ["draw", "total"]), "other random numbers"
    assert resumed(path, [1, 5], 2) == ([6, 7, 13, "int", 4], ["load", "total"]), "another argument"


def test_what_came_from_an_exception_is_not_restored(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    found, _ = resumed(path, [1, 2], 1)
    assert found[-2:] == ["ValueError", 4]
    monkeypatch.delenv("BROKEN")
    found, called = resumed(path, [1, 2], 1)
    assert found[-2:] == ["int", 4]
    assert called == ["count", "fragile", "total"]
