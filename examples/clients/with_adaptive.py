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

TOLERANCE = 1e-9


def resonance(x: float) -> float:
    """A peak at 0.3, as the mean of many shifted ones, so that it costs some milliseconds."""
    shifts = np.linspace(-0.01, 0.01, 500_000)
    return float(np.mean(1.0 / ((x - 0.3 - shifts) ** 2 + 0.01)))


def answer(executor: Any) -> str:
    """The integral from -1 to 1, by an executor or without one."""
    learner = adaptive.IntegratorLearner(resonance, (-1.0, 1.0), TOLERANCE)
    if executor is None:
        adaptive.runner.simple(learner, goal=lambda learner: learner.done())
    else:
        # adaptive knows the number of workers of some executors only.
        adaptive.BlockingRunner(learner, goal=lambda learner: learner.done(), executor=executor, ntasks=4)
    # Which points it took, and so the digits beyond the tolerance, depend on what came first.
    return f"integral {learner.igral:.6f}"


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Farm() as farm:
            print(answer(farm))
