"""Patterns of the Gray-Scott model in two stages: simulate fields, then look at them where they are.

Each field is made by one task and needed by two others: one measures its pattern, and one makes a small
picture of it. With ``keep=True`` a field stays with the worker that made it, or goes from there to the one
that needs it. Rank 0 gets a number and a picture of 64 x 64 points for each field, but never the field::

    mpiexec -np 16 python -m taskfarm run examples/patterns.py
    python examples/patterns.py --columns 4 --rows 3 --steps 1000

Two substances react and diffuse on a square whose opposite edges meet: u is fed, v turns u into more of
itself, and v is removed (J. E. Pearson, Science 261, 189 (1993)). How fast they are fed and removed decides
which pattern appears, if any.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskfarm import task

Field = NDArray[np.float64]

FEEDS, KILLS = (0.010, 0.060), (0.045, 0.066)
PIXELS = 64


def laplacian(field: Field) -> Field:
    """The discrete Laplace operator; opposite edges meet.

    Parameters
    ----------
    field : ndarray of float64, shape (size, size)
        Values on a square grid with a spacing of 1.
    """
    return (
        np.roll(field, 1, 0) + np.roll(field, -1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1)
    ) - 4.0 * field


@task(keep=True)
def simulate(feed: float, kill: float, size: int, steps: int) -> Field:
    """Let a disturbance in the middle of a uniform field grow.

    Parameters
    ----------
    feed, kill : float
        How fast u is fed, and v removed, per unit of time.
    size : int
        Points along each edge.
    steps : int
        Units of time, one each.

    Returns
    -------
    ndarray of float64, shape (size, size)
        The concentration of v at the end.
    """
    u, v = np.ones((size, size)), np.zeros((size, size))
    middle = slice(size // 2 - size // 10, size // 2 + size // 10)
    u[middle, middle], v[middle, middle] = 0.50, 0.25
    # The same small disturbance for every pair, so that results do not depend on who computes them.
    noise = np.random.default_rng(0).random((2, size, size))
    u += 0.02 * noise[0]
    v += 0.02 * noise[1]
    for _ in range(steps):
        reaction = u * v * v
        u += 0.16 * laplacian(u) - reaction + feed * (1.0 - u)
        v += 0.08 * laplacian(v) + reaction - (feed + kill) * v
    return v


@task
def wavelength(field: Field) -> float:
    """The most frequent distance between stripes or spots, in points; 0 if there is no pattern.

    Parameters
    ----------
    field : ndarray of float64, shape (size, size)
        The concentration of v.
    """
    size = len(field)
    if field.std() < 0.01:
        return 0.0
    power = np.abs(np.fft.fft2(field - field.mean())) ** 2
    waves = np.fft.fftfreq(size) * size
    radius = np.hypot(waves[:, None], waves).round().astype(int)
    by_radius = np.bincount(radius.ravel(), power.ravel())[: size // 2]
    # Longer waves are the outline of the pattern.
    return float(size / (4 + int(by_radius[4:].argmax())))


@task
def thumbnail(field: Field, pixels: int = PIXELS) -> NDArray[np.uint8]:
    """A small picture of a field.

    Parameters
    ----------
    field : ndarray of float64, shape (size, size)
        The concentration of v; `size` is a multiple of `pixels`.
    pixels : int
        Points along each edge of the picture.
    """
    step = len(field) // pixels
    small = field.reshape(pixels, step, pixels, step).mean((1, 3))
    return np.clip(small / 0.4 * 255.0, 0, 255).astype(np.uint8)


def compute(
    feeds: NDArray[np.float64], kills: NDArray[np.float64], size: int, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Run both stages.

    Returns
    -------
    waves : ndarray of float64, shape (feeds, kills)
        See `wavelength`.
    mosaic : ndarray of uint8, shape (feeds * pixels, kills * pixels)
        All pictures, side by side.
    """
    fields = [simulate.submit(float(feed), float(kill), size, steps) for feed in feeds for kill in kills]
    # Both maps begin at once: each of their tasks waits for its own field only.
    waves, pictures = wavelength.map(fields), thumbnail.map(fields)
    shape = len(feeds), len(kills)
    tiles = np.array(list(pictures)).reshape(*shape, PIXELS, PIXELS)
    mosaic = tiles.swapaxes(1, 2).reshape(shape[0] * PIXELS, shape[1] * PIXELS)
    return np.array(list(waves)).reshape(shape), mosaic


def save_picture(
    mosaic: NDArray[np.uint8], feeds: NDArray[np.float64], kills: NDArray[np.float64], path: Path
) -> None:
    """Draw the patterns over both rates."""
    # Imported here, so that only the process that draws needs matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.0 + 6.4 * len(feeds) / len(kills)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="magma", interpolation="bilinear")
    for set_ticks, values in ((axes.set_xticks, kills), (axes.set_yticks, feeds)):
        places = PIXELS * (np.arange(len(values)) + 0.5)
        set_ticks(places, [f"{value:.3f}" for value in values])
    axes.set_xlabel("rate at which v is removed")
    axes.set_ylabel("rate at which u is fed")
    figure.savefig(path, dpi=120)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Patterns of the Gray-Scott model.")
    parser.add_argument("--columns", type=int, default=9, help="rates at which v is removed")
    parser.add_argument("--rows", type=int, default=6, help="rates at which u is fed")
    parser.add_argument("--size", type=int, default=128, help="points along each edge of a field")
    parser.add_argument("--steps", type=int, default=4000, help="units of time")
    parser.add_argument("--output", type=Path, default=Path("patterns.png"), help="the picture")
    parser.add_argument("--no-picture", action="store_true", help="only print the numbers")
    options = parser.parse_args(arguments)
    for name in ("columns", "rows", "steps"):
        if (value := getattr(options, name)) < 1:
            parser.error(f"--{name} must be at least 1, not {value}")
    if options.size < PIXELS or options.size % PIXELS:
        parser.error(f"--size must be a multiple of {PIXELS}, not {options.size}")
    if options.output.is_dir() or not options.output.parent.is_dir():
        # Now, rather than after the work is done.
        parser.error(f"not a file in an existing folder: {options.output}")
    return options


def main() -> None:
    """Run both stages, print the wavelengths, save the picture."""
    options = parse_arguments()
    feeds, kills = np.linspace(*FEEDS, options.rows), np.linspace(*KILLS, options.columns)
    waves, mosaic = compute(feeds, kills, options.size, options.steps)
    print("wavelength in points, by the rates of feeding (down) and removal (across)")
    print("       " + " ".join(f"{kill:6.3f}" for kill in kills))
    for feed, row in zip(feeds, waves, strict=True):
        print(f"{feed:6.3f} " + " ".join(f"{wave:6.1f}" if wave else "     -" for wave in row))
    if not options.no_picture:
        save_picture(mosaic, feeds, kills, options.output)
        print(f"saved {options.output}")


if __name__ == "__main__":
    main()
