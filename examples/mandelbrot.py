"""Draw the Mandelbrot set, one row of the picture per task.

Rows through the set take many times as long as rows beside it. Dealt out in equal shares, most
processes would wait for the few with the hard rows; a farm hands a process the next row when it
is done with the last one::

    mpiexec -np 16 python -m taskfarm run examples/mandelbrot.py
    python examples/mandelbrot.py --width 400 --height 300
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
from numpy.typing import NDArray

from taskfarm import Farm, task

LEFT, RIGHT = -2.2, 0.8  # of the picture, on the real axis

Counts = NDArray[np.int32]


def escape_counts(c: NDArray[np.complex128], max_iterations: int) -> Counts:
    """Iterations of ``z -> z^2 + c`` from zero until ``|z| > 2``.

    Parameters
    ----------
    c : ndarray of complex128, shape (n,)
    max_iterations : int
        Where to give up; points of the set never escape.

    Returns
    -------
    ndarray of int32, shape (n,)
        `max_iterations` for points that have not escaped by then.
    """
    counts = np.full(c.shape, max_iterations, dtype=np.int32)
    inside = np.arange(c.size)
    z = np.zeros_like(c)
    for iteration in range(1, max_iterations):
        z = z * z + c
        escaped = z.real * z.real + z.imag * z.imag > 4.0
        if escaped.any():
            # From here on only with the points that are left.
            counts[inside[escaped]] = iteration
            stay = ~escaped
            inside, z, c = inside[stay], z[stay], c[stay]
            if not inside.size:
                break
    return counts


@task
def row(imaginary: float, width: int, max_iterations: int) -> tuple[Counts, float]:
    """Compute one row of the picture.

    Parameters
    ----------
    imaginary : float
        Imaginary part of all points of the row.
    width : int
        Points in the row.
    max_iterations : int

    Returns
    -------
    counts : ndarray of int32, shape (width,)
        See `escape_counts`.
    seconds : float
        Processor time spent here.
    """
    started = thread_time()
    points = np.linspace(LEFT, RIGHT, width).astype(np.complex128)
    points += 1j * imaginary
    counts = escape_counts(points, max_iterations)
    return counts, thread_time() - started


def row_positions(width: int, height: int) -> NDArray[np.float64]:
    """Imaginary parts of the rows, shape (height,), from top to bottom, for square pixels."""
    half = (RIGHT - LEFT) * height / width / 2.0
    return np.linspace(half, -half, height)


def compute_picture(width: int, height: int, max_iterations: int) -> tuple[Counts, NDArray[np.float64]]:
    """Run one task per row.

    Returns
    -------
    counts : ndarray of int32, shape (height, width)
        See `escape_counts`.
    seconds : ndarray of float64, shape (height,)
        Processor time of every row.
    """
    calls = ((float(y), width, max_iterations) for y in row_positions(width, height))
    counts = np.empty((height, width), dtype=np.int32)
    seconds = np.empty(height)
    for index, result in enumerate(row.starmap(calls)):
        counts[index], seconds[index] = result
    return counts, seconds


def save_picture(counts: Counts, max_iterations: int, path: Path) -> None:
    """Draw the picture: black inside, outside brighter the later a point escapes."""
    # Imported here, so that only the process that draws needs matplotlib.
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.image import imsave

    inside = counts == max_iterations
    # A few points at the border take far longer than all others; they must not set the scale.
    outside = counts[~inside]
    top = max(float(np.percentile(outside, 99.5)), 2.0) if outside.size else 2.0
    colours = colormaps["inferno"](LogNorm(0.5, top, clip=True)(counts))
    colours[inside] = (0.0, 0.0, 0.0, 1.0)
    imsave(path, colours)


def report(counts: Counts, seconds: NDArray[np.float64], wall: float, workers: int) -> None:
    """Print how long it took, and how uneven the rows were."""
    low, middle, high = (float(value) * 1e3 for value in np.percentile(seconds, [0, 50, 100]))
    height, width = counts.shape
    spent = float(seconds.sum())
    print(f"picture      {width} x {height} points, {workers} workers")
    print(f"wall time    {wall:.3f} s")
    print(f"task times   {spent:.3f} s in all")
    print(f"a row takes  {low:.2f} ms at least, {middle:.2f} ms in the middle, {high:.2f} ms at most")
    print(f"speed-up     {spent / wall:.2f} (task times / wall time)")
    print(f"checksum     {int(counts.sum(dtype=np.int64))} (sum of all iterations)")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Draw the Mandelbrot set.")
    parser.add_argument("--width", type=int, default=800, help="of the picture, in points")
    parser.add_argument("--height", type=int, default=600, help="of the picture, in points")
    parser.add_argument("--max-iterations", type=int, default=1000, help="where to give up")
    parser.add_argument("--output", type=Path, default=Path("mandelbrot.png"), help="the picture")
    parser.add_argument("--no-picture", action="store_true", help="only print the numbers")
    options = parser.parse_args(arguments)
    for name in ("width", "height", "max_iterations"):
        if (value := getattr(options, name)) < 2:
            parser.error(f"--{name.replace('_', '-')} must be at least 2, not {value}")
    if options.output.is_dir() or not options.output.parent.is_dir():
        # Now, rather than after the work is done.
        parser.error(f"not a file in an existing folder: {options.output}")
    return options


def main() -> None:
    """Compute the rows, print the numbers, save the picture."""
    options = parse_arguments()
    with Farm() as farm:
        started = perf_counter()
        counts, seconds = compute_picture(options.width, options.height, options.max_iterations)
        report(counts, seconds, perf_counter() - started, farm.num_workers)
    if not options.no_picture:
        save_picture(counts, options.max_iterations, options.output)
        print(f"saved        {options.output}")


if __name__ == "__main__":
    main()
