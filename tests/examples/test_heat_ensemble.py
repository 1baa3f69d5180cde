"""The example of an ensemble of solvers on several ranks."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from tests.examples.conftest import EXAMPLES, load

SMALL = ["--members", "4", "--size", "24", "--steps", "60"]


@pytest.fixture(scope="module")
def heat_ensemble() -> ModuleType:
    return load("heat_ensemble")


def printed(*words: str) -> list[str]:
    """What the example prints, started in some way."""
    command = [sys.executable, *words, *SMALL]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_it_solves_the_heat_equation(heat_ensemble: ModuleType) -> None:
    heat = heat_ensemble.solve(0.25, 24, 4000)
    # In the end each point is the mean of its neighbours, the hot edge included.
    padded = np.pad(heat, 1)
    padded[:, 0] = 1.0
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert heat == pytest.approx(around / 4, abs=1e-6)
    assert heat == pytest.approx(heat[::-1])
    assert 0 < heat_ensemble.reach(heat) < 1


def test_the_numbers_are_the_same_on_any_number_of_ranks() -> None:
    script = str(EXAMPLES / "heat_ensemble.py")
    alone = printed(script, "--ranks", "1")
    run = ["-m", "taskfarm", "run", "-n", "4", "--quiet", script]
    assert alone == printed(*run, "--ranks", "3")
    assert len(alone) >= 4
