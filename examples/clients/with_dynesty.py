"""The evidence of a ring-shaped likelihood by nested sampling with dynesty: ``pool=pool``.

::

    python -m taskfarm run -n 3 examples/clients/with_dynesty.py
    python examples/clients/with_dynesty.py --serial
"""

from __future__ import annotations

import math
import sys
from typing import Any

import dynesty
import numpy as np

from taskfarm.compat import Pool

QUEUE = 4  # points proposed at a time; they are part of the answer, so they do not follow the workers


def likelihood(point: Any) -> float:
    """Log likelihood: a ring, averaged over many radii to cost a millisecond."""
    radius = math.hypot(*point)
    widths = np.linspace(0.1, 0.3, 100_000)
    return float(np.mean(-0.5 * ((radius - 1.0) / widths) ** 2 - np.log(widths)))


def prior(unit: Any) -> Any:
    """From the unit square to a square of side 4."""
    return 4.0 * unit - 2.0


class Serial:
    """A pool without workers: with none at all dynesty proposes one point at a time."""

    map = staticmethod(map)


def answer(pool: Any) -> str:
    """The evidence, by the map of a pool."""
    sampler = dynesty.NestedSampler(
        likelihood,
        prior,
        2,
        nlive=60,
        rstate=np.random.default_rng(11),
        pool=Serial if pool is None else pool,
        queue_size=QUEUE,
    )
    sampler.run_nested(print_progress=False, maxcall=1500)
    return f"log evidence {float(sampler.results.logz[-1])!r} after {int(sampler.results.niter)} steps"


if __name__ == "__main__":
    if "--serial" in sys.argv:
        print(answer(None))
    else:
        with Pool() as pool:
            print(answer(pool))
