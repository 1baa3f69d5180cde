"""Estimate pi by throwing points at a square, and show how the error shrinks.

The share of random points of the unit square that fall within the quarter circle is pi/4. The
points are thrown in chunks, one task each::

    mpiexec -np 16 python -m taskfarm run examples/pi_monte_carlo.py
    python examples/pi_monte_carlo.py --samples 1000000

Every chunk has a random generator of its own, derived from the seed and the number of the chunk
and not from the process that runs it. So the final estimate is the same for any number of
processes. The lines before it are not: chunks are counted as they come in.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from taskfarm import task

BLOCK = 1 << 16  # points thrown at once: few enough to stay in the cache


@task
def throw(seed: int, chunk: int, samples: int) -> tuple[int, int]:
    """Throw the points of one chunk.

    Parameters
    ----------
    seed : int
        Of the whole run.
    chunk : int
        Number of this chunk; with the seed it determines all points.
    samples : int
        Points to throw.

    Returns
    -------
    (hits, samples) : tuple of int
        Points within the quarter circle, and points thrown.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(chunk,)))
    hits = 0
    for start in range(0, samples, BLOCK):
        x, y = generator.random((2, min(BLOCK, samples - start)))
        hits += int(np.count_nonzero(x * x + y * y < 1.0))
    return hits, samples


def chunk_sizes(samples: int, chunks: int) -> list[int]:
    """Split `samples` into `chunks` whole numbers that differ by one at most."""
    smaller, larger = divmod(samples, chunks)
    return [smaller + (chunk < larger) for chunk in range(chunks)]


def estimate(hits: int, samples: int) -> tuple[float, float]:
    """Estimate of pi and its standard error, from the binomial distribution of the hits."""
    share = hits / samples
    return 4.0 * share, 4.0 * math.sqrt(share * (1.0 - share) / samples)


def running_totals(results: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Hits and samples so far, after every chunk.

    Whole numbers, so that the last totals do not depend on the order of the chunks; a sum of
    floats would.
    """
    hits = samples = 0
    for chunk_hits, chunk_samples in results:
        hits += chunk_hits
        samples += chunk_samples
        yield hits, samples


def save_picture(totals: Sequence[tuple[int, int]], path: Path) -> None:
    """Draw the estimate after every chunk, with its standard error, against the points so far."""
    # Imported here, so that only the process that draws needs matplotlib.
    from matplotlib.figure import Figure

    samples = np.array([count for _, count in totals])
    values, errors = np.array([estimate(*pair) for pair in totals]).T
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(samples, -errors, errors, color="0.85", label="standard error")
    axes.semilogx(samples, values - math.pi, color="tab:blue", label="estimate")
    axes.axhline(0.0, color="0.4", linewidth=0.8)
    axes.set(xlabel="points", ylabel="estimate - pi", xlim=(samples[0], samples[-1]))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Estimate pi by Monte Carlo.")
    parser.add_argument("--samples", type=int, default=200_000_000, help="points in all")
    parser.add_argument("--chunks", type=int, default=1000, help="tasks to split them into")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--output", type=Path, help="draw the estimates on the way into this file")
    options = parser.parse_args(arguments)
    if options.chunks < 1:
        parser.error(f"--chunks must be at least 1, not {options.chunks}")
    if options.samples < options.chunks:
        parser.error(f"--samples must be at least --chunks, {options.chunks}")
    if options.seed < 0:
        parser.error(f"--seed must not be negative, not {options.seed}")
    if options.output is not None and (options.output.is_dir() or not options.output.parent.is_dir()):
        # Now, rather than after the work is done.
        parser.error(f"not a file in an existing folder: {options.output}")
    return options


def main() -> None:
    """Throw all points; print the estimate ten times on the way."""
    options = parse_arguments()
    sizes = chunk_sizes(options.samples, options.chunks)
    calls = ((options.seed, chunk, size) for chunk, size in enumerate(sizes))
    results = throw.starmap(calls, unordered=True)
    totals = []
    for done, (hits, samples) in enumerate(running_totals(results), start=1):
        totals.append((hits, samples))
        if done * 10 // options.chunks > (done - 1) * 10 // options.chunks:
            value, error = estimate(hits, samples)
            print(f"{samples:>15,} points  pi = {value:.8f} +- {error:.8f}")
    value, error = estimate(hits, samples)
    print(f"pi       {value!r} ({hits} of {samples} points)")
    print(f"off by   {abs(value - math.pi):.1e}, with a standard error of {error:.1e}")
    if options.output is not None:
        save_picture(totals, options.output)
        print(f"saved    {options.output}")


if __name__ == "__main__":
    main()
