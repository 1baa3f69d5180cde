"""Integrate a resonance with adaptive, which chooses the next points by what has come: ``executor=farm``.

::

    python -m taskfarm run -n 3 examples/clients/with_adaptive.py
    python examples/clients/with_adaptive.py --serial
"""

from __future__ import annotations

import sys
from typing import Any

import adaptive
import numpy as np

from taskfarm import Farm

POINTS = 300


def resonance(x: float) -> float:
    """A peak at 0.3, as the mean of many shifted ones, so that it costs some milliseconds."""
    shifts = np.linspace(-0.01, 0.01, 500_000)
    return float(np.mean(1.0 / ((x - 0.3 - shifts) ** 2 + 0.01)))


def answer(executor: Any) -> str:
    """The integral from -1 to 1, by an executor or without one."""
    learner = adaptive.Learner1D(resonance, (-1.0, 1.0))
    if executor is None:
        adaptive.runner.simple(learner, npoints_goal=POINTS)
    else:
        # adaptive knows how many workers some executors have only; a few tasks for each keep them busy.
        adaptive.BlockingRunner(learner, npoints_goal=POINTS, executor=executor, ntasks=8)
    x, y = np.array(sorted(learner.data.items())).T
    # Which points it took, and so further digits, depend on what came first.
    return f"integral {np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / 2:.1f}"


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Farm() as farm:
            print(answer(farm))
