"""Sample the posterior of a decay and its half-life with emcee: ``pool=pool``.

::

    python -m taskfarm run -n 3 examples/clients/with_emcee.py
    python examples/clients/with_emcee.py --serial
"""

from __future__ import annotations

import sys
from typing import Any

import emcee
import numpy as np
from scipy.integrate import solve_ivp

from taskfarm.compat import Pool

TIMES = np.linspace(0.0, 10.0, 40)
DATA = np.exp(-0.3 * TIMES) + 0.05 * np.random.default_rng(1).standard_normal(len(TIMES))


def log_probability(parameters: Any) -> float:
    """Log of the posterior: a flat prior, normal errors."""
    start, rate = parameters
    if not (0.1 < start < 3.0 and 0.01 < rate < 2.0):
        return -np.inf
    model = solve_ivp(lambda _, y: -rate * y, (0.0, 10.0), [start], t_eval=TIMES, rtol=1e-7).y[0]
    return float(-0.5 * np.sum(((DATA - model) / 0.05) ** 2))


def answer(pool: Any) -> str:
    """Means of the chain, with the map of a pool or without one."""
    walkers = 24
    start = [1.0, 0.3] + 0.01 * np.random.default_rng(2).standard_normal((walkers, 2))
    sampler = emcee.EnsembleSampler(walkers, 2, log_probability, pool=pool)
    # emcee draws from the state that it is given, or else from numpy's global one.
    np.random.seed(3)
    sampler.run_mcmc(emcee.State(start, random_state=np.random.get_state()), 40)
    chain = sampler.get_chain(discard=10, flat=True)
    return f"start {float(chain[:, 0].mean())!r} rate {float(chain[:, 1].mean())!r}"


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Pool() as pool:
            print(answer(pool))
