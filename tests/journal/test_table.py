"""The export of a journal as a table, from a run of three functions."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskfarm.errors import JournalError
from taskfarm.journal import table
from taskfarm.journal.report import report

JOB = """
from typing import NamedTuple
from taskfarm import task

class Point(NamedTuple):
    x: int
    name: str

@task
def square(x):
    return x * x

@task(on_error="return")
def point(x):
    if x == 1:
        raise ValueError("one, or \\"1\\"\\nor so")
    return Point(x, f"p{x}")

@task
def odd(x):
    return {"sum": 0.5 + x, "parts": [x, (x, None)], "set": {x}}

for function in (square, point, odd):
    list(function.map(range(3)))
"""


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    (folder / "job.py").write_text(JOB)
    words = [sys.executable, "-m", "taskfarm", "run", "--quiet", "--journal", "run.db", "job.py"]
    subprocess.run(words, cwd=folder, check=True, timeout=240, capture_output=True)
    return folder / "run.db"


def test_csv(journal: Path, tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    report(str(journal), str(target))
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["function"] for row in rows] == ["square"] * 3 + ["point"] * 3 + ["odd"] * 3
    assert [row["task"] for row in rows] == list(map(str, range(9)))
    assert [row["result"] for row in rows[:3]] == ["0", "1", "4"]
    assert [row["argument.x"] for row in rows] == ["0", "1", "2"] * 3
    assert [rows[3][name] for name in ("result.x", "result.name", "error")] == ["0", "p0", ""]
    assert (rows[4]["result"], rows[4]["error"]) == ("", 'ValueError: one, or "1" or so')
    assert (rows[8]["result.sum"], rows[8]["result.parts"]) == ("2.5", "[2, [2, null]]")
    assert rows[8]["result.set"] == "{2}"
    assert list(rows[0])[:4] == ["task", "function", "seconds", "rank"]
    assert list(rows[0])[-1] == "error"
    assert float(rows[0]["seconds"]) >= 0


def test_parquet(journal: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="no pyarrow: pip install pyarrow")
    target = tmp_path / "results.parquet"
    report(str(journal), str(target))
    rows = parquet.read_table(target).to_pylist()
    assert [row["result"] for row in rows[:6]] == [0, 1, 4, None, None, None]
    points = [(row["result.x"], row["result.name"]) for row in rows[3:6]]
    assert points == [(0, "p0"), (None, None), (2, "p2")]
    assert rows[8]["result.sum"] == 2.5


def test_parquet_without_pyarrow(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    target = tmp_path / "results.parquet"
    with pytest.raises(JournalError, match=r"a \.parquet file needs pyarrow: pip install pyarrow"):
        report(str(journal), str(target))
    assert not target.exists()


@pytest.mark.parametrize(
    ("result", "cells"),
    [
        (np.float64(0.5), {"result": 0.5}),
        (np.array([1, 2]), {"result.0": 1, "result.1": 2}),
        (np.ones((2, 2)), {"result.0": "[1.0, 1.0]", "result.1": "[1.0, 1.0]"}),
        (list(range(65)), {"result": str(list(range(65)))}),
        ((), {"result": "[]"}),
        ({}, {"result": "{}"}),
        (None, {"result": None}),
        (True, {"result": True}),
        (1 + 2j, {"result": "(1+2j)"}),
        ({"a": np.int8(3), 2: [np.float64(1)]}, {"result.a": 3, "result.2": "[1.0]"}),
    ],
)
def test_parts_of_a_result(result: object, cells: dict[str, object]) -> None:
    assert table.row_of({"task": 1}, result, None) == {"task": 1, **cells}


@pytest.mark.parametrize("write", [table.write_csv, table.write_parquet])
def test_any_cells(write: Callable[..., Any], tmp_path: Path) -> None:
    if write is table.write_parquet:
        pytest.importorskip("pyarrow", reason="no pyarrow: pip install pyarrow")
    results: list[object] = [1, 2.5, "text", None, 10**30, "\udc80", float("nan"), [1], b"x", object()]
    rows = [table.row_of({"task": number}, result, None) for number, result in enumerate(results)]
    for some in (rows, rows[:2], rows[4:5], rows[5:6], rows[3:4], []):
        with open(tmp_path / f"{len(some)}{some[:1]}"[:20].replace("/", ""), "wb") as file:
            write(file, some)
