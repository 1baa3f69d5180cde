"""Minimise a noisy function with optuna, by asking for a batch of trials and telling their values.

::

    python -m taskfarm run -n 3 examples/clients/with_optuna.py
    python examples/clients/with_optuna.py --serial
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import optuna

from taskfarm import Farm

BATCH = 4  # trials at a time; they are part of the answer, so they do not follow the workers


def branin(number: int, x: float, y: float) -> float:
    """Branin's function with noise that depends on the number of the trial alone."""
    noise = np.random.default_rng(number).standard_normal(1_000_000).mean()
    bowl = y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10 + noise)


def answer(executor: Any) -> str:
    """The best value, with the map of an executor or the built-in one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=4, n_startup_trials=8))
    for _ in range(12):
        trials = [study.ask() for _ in range(BATCH)]
        xs = [trial.suggest_float("x", -5.0, 10.0) for trial in trials]
        ys = [trial.suggest_float("y", 0.0, 15.0) for trial in trials]
        numbers = [trial.number for trial in trials]
        for trial, value in zip(trials, (executor or Builtin).map(branin, numbers, xs, ys), strict=True):
            study.tell(trial, value)
    return f"value {study.best_value!r} at {study.best_params}"


class Builtin:
    """An executor without workers."""

    map = staticmethod(map)


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Farm() as farm:
            print(answer(farm))
