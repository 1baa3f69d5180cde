"""The import table holds, and would say so if it did not."""

import runpy
from pathlib import Path
from typing import Any

import pytest

IMPORTS: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "scripts/imports"))


def test_table_holds() -> None:
    assert IMPORTS["main"]() == 0


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("scheduler", "from taskfarm.master import Master", "imports master, which is not above it"),
        ("scheduler", "def f():\n    from taskfarm import farm", "imports farm, which is not above it"),
        ("worker", "from mpi4py import MPI", "imports mpi4py, which only mpi may"),
        ("parlour", "", "not in the table"),
        ("worker", "\n" * 301, "301 lines"),
        ("worker", "def f():\n" + "    x = 1\n" * 50, "f has 51 lines"),
    ],
)
def test_complaints(room: str, source: str, complaint: str) -> None:
    assert [complaint in found for found in IMPORTS["complaints"](room, source)] == [True]
