"""What a journal keeps of `reduce` and `map_array`, and what a resumed run takes from it."""

import csv
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, current, rng, task
from taskfarm.journal.report import report
from tests.journal.test_stale_results import run

CALLS: list[Any] = []


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")


def text(n: int) -> str:
    CALLS.append(n)
    return f"{n},"


def array(n: int) -> Any:
    CALLS.append(n)
    return np.full(20_000, float(n))


def noisy(block: Any) -> Any:
    CALLS.append(current().rows)
    return block + rng().random(block.shape)


def even(n: int) -> int:
    CALLS.append(n)
    if n % 2 and n > 90:
        raise ValueError(n)
    return n


def first(left: str, right: str) -> str:
    return left


def counted(path: str, *args: Any, **options: Any) -> tuple[list[Any], int]:
    """The results of a run that resumes, and how many calls it took."""
    # A function's code includes the globals that it uses.
    CALLS.clear()
    results = run(path, *args, **options)
    calls = len(CALLS)
    CALLS.clear()
    return results, calls


def reduced(path: str, function: Any, items: Any, operation: Any = operator.add) -> tuple[Any, int]:
    """The value of a reduction in a run that resumes, and how many calls it took."""

    def use(farm: Farm, function: Any, items: Any) -> list[Any]:
        return [farm.reduce(function, operation, items)]

    (value,), calls = counted(path, function, items, use)
    return value, calls


@pytest.mark.parametrize("length", [1, 2, 37, 5000])
def test_nothing_runs_again(path: str, length: int) -> None:
    expected = "".join(f"{n}," for n in range(length))
    assert reduced(path, text, range(length)) == (expected, length)
    assert reduced(path, text, range(length)) == (expected, 0)
    longer, calls = reduced(path, text, range(length + 3))
    assert longer == expected + f"{length},{length + 1},{length + 2},"
    assert 3 <= calls <= 4


def test_equal_calls(path: str) -> None:
    expected = "7," * 300
    assert reduced(path, text, [7] * 300) == (expected, 300)
    assert reduced(path, text, [7] * 300) == (expected, 0)


def test_what_has_changed_runs_again_with_what_is_combined_with_it(path: str) -> None:
    assert reduced(path, text, range(64))[1] == 64
    changed = [*range(40), 1000, *range(41, 64)]
    value, calls = reduced(path, text, changed)
    assert value == "".join(f"{n}," for n in changed)
    assert 1 <= calls <= 32
    shifted = [5000, *range(64)]
    value, calls = reduced(path, text, shifted)
    assert value == "".join(f"{n}," for n in shifted)


def test_another_operation_and_a_map_do_not_share_results(path: str) -> None:
    keyed = task(key=lambda n: n)(text)
    for function in (text, keyed):
        assert reduced(path, function, range(20))[1] == 20
        assert reduced(path, function, range(20), first) == ("0,", 20)
        assert counted(path, function, range(20)) == ([f"{n}," for n in range(20)], 20)
        assert reduced(path, function, range(20))[1] == 0


def test_arrays(path: str) -> None:
    for calls in (100, 0, 0):
        value, run_calls = reduced(path, array, range(100), np.add)
        assert value.tolist() == [4950.0] * 20_000
        assert run_calls == calls


def test_failures_run_again(path: str) -> None:
    replaced = task(on_error=lambda error: 0)(even)
    expected = sum(n for n in range(100) if n <= 90 or not n % 2)
    assert reduced(path, replaced, range(100)) == (expected, 100)
    assert reduced(path, replaced, range(100)) == (expected, 5)


def test_blocks_and_their_random_numbers(path: str) -> None:
    image = np.arange(600.0).reshape(60, 10)

    def use(farm: Farm, function: Any, items: Any) -> list[Any]:
        return [farm.map_array(function, items, rows=7)]

    (before,), calls = counted(path, noisy, image, use, seed=3)
    assert calls == 9
    (after,), calls = counted(path, noisy, image, use, seed=3)
    assert calls == 0
    assert np.array_equal(before, after)
    image[20] += 1
    (changed,), calls = counted(path, noisy, image, use, seed=3)
    assert calls == 1
    assert np.array_equal(np.unique(np.nonzero(changed != before)[0]), [20])


def test_elements(path: str) -> None:
    def use(farm: Farm, function: Any, items: Any) -> list[Any]:
        return farm.over(function, items).tolist()  # type: ignore[no-any-return]

    expected = [f"{n}," for n in range(50)]
    assert counted(path, text, range(50), use) == (expected, 50)
    assert counted(path, text, range(50), use) == (expected, 0)


def test_report_and_export(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reduced(path, text, range(8))
    table = tmp_path / "results.csv"
    assert report(path, str(table)) == 0
    assert "text: 8 tasks" in capsys.readouterr().out
    with table.open() as file:
        results = [row["result"] for row in csv.DictReader(file)]
    assert len(results) == 8
    assert "".join(result for result in results if not result.startswith("(")) == "0,1,2,3,4,5,6,7,"
