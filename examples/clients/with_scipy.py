"""Fit a damped oscillator to a noisy signal by differential evolution: ``workers=pool.map``.

::

    python -m taskfarm run -n 3 examples/clients/with_scipy.py
    python examples/clients/with_scipy.py --serial
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import differential_evolution

from taskfarm.compat import Pool

TRUE = (1.3, 0.2)
TIMES = np.linspace(0.0, 15.0, 60)


def signal(frequency: float, damping: float) -> Any:
    """The position at all times, by integration."""

    def slope(_: float, y: Any) -> list[float]:
        return [y[1], -(frequency**2) * y[0] - 2.0 * damping * y[1]]

    return solve_ivp(slope, (0.0, 15.0), [1.0, 0.0], t_eval=TIMES, rtol=1e-6).y[0]


def misfit(parameters: Any) -> float:
    """Sum of squares of what the model leaves."""
    noise = 0.05 * np.random.default_rng(7).standard_normal(len(TIMES))
    return float(np.sum((signal(*parameters) - signal(*TRUE) - noise) ** 2))


def answer(pool: Any) -> str:
    """The best parameters, as found by the map of a pool, or by the built-in one."""
    found = differential_evolution(
        misfit,
        [(0.5, 3.0), (0.0, 1.0)],
        rng=5,
        popsize=12,
        maxiter=8,
        polish=False,
        updating="deferred",
        workers=map if pool is None else pool.map,
    )
    return f"frequency {float(found.x[0])!r} damping {float(found.x[1])!r} misfit {float(found.fun)!r}"


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Pool() as pool:
            print(answer(pool))
