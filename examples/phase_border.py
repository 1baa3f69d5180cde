"""Find the borders between the regimes of CO oxidation by refining a map only where they run.

The plane of the two pressures is cut into squares. A square whose points are all in one regime is
done; any other returns the futures of its four quarters, down to the finest level. So tasks submit
tasks, and no worker waits. The result is one nested list, as deep as the squares are fine. Start it on all
cores, on sixteen ranks or in one process::

    python -m taskfarm run -n auto examples/phase_border.py
    mpiexec -np 16 python -m taskfarm run examples/phase_border.py --levels 9
    python examples/phase_border.py --levels 6 --output phase_border.png

The model is that of ``tof_map.py`` beside this file.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tof_map import DEFAULT_TEMPERATURE, HIGHEST_PRESSURE, LOWEST_PRESSURE, tof

from taskfarm import Farm, task

COARSEST = 3  # levels that are always refined, or small regimes could hide inside a square
POINTS = 5  # along each side of a square
REGIMES = ("bare", "CO", "O")
COLOURS = ("#f1e9c8", "#7a4b94", "#3b8ea5")


class Square(NamedTuple):
    """A square of the map: `column` and `row` of 2 to the power of `level` along each side."""

    level: int
    column: int
    row: int


class Leaf(NamedTuple):
    """A square that is not refined, and its regime: an index in `REGIMES`, or -1 on a border."""

    square: Square
    regime: int


def pressure(fraction: float) -> float:
    """Pressure in bar at a fraction of the way along an axis, which is logarithmic."""
    return LOWEST_PRESSURE * (HIGHEST_PRESSURE / LOWEST_PRESSURE) ** fraction


def regime(p_o2: float, p_co: float, temperature: float) -> int:
    """What holds more than half of the sites, as an index in `REGIMES`."""
    _, co, o = tof(p_o2, p_co, temperature)
    return 1 if co > 0.5 else 2 if o > 0.5 else 0


@task
def refine(square: Square, levels: int, temperature: float) -> Any:
    """A leaf, or the futures of the four quarters of a square."""
    level, column, row = square
    steps = [step / (POINTS - 1) for step in range(POINTS)]
    xs = [pressure((column + step) / 2**level) for step in steps]
    ys = [pressure((row + step) / 2**level) for step in steps]
    found = {regime(x, y, temperature) for x in xs for y in ys}
    if len(found) == 1 and level >= COARSEST:
        return Leaf(square, found.pop())
    if level == levels:
        return Leaf(square, -1)
    quarters = [Square(level + 1, 2 * column + x, 2 * row + y) for x in (0, 1) for y in (0, 1)]
    return [refine.submit(quarter, levels, temperature) for quarter in quarters]


def leaves(result: Any) -> Iterator[Leaf]:
    """All leaves of a nested result."""
    if isinstance(result, Leaf):
        yield result
    else:
        for part in result:
            yield from leaves(part)


def save_picture(found: Sequence[Leaf], temperature: float, path: Path) -> None:
    """Draw the squares, each in the colour of its regime, and black on a border."""
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    figure = Figure(figsize=(6.4, 5.8), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    boxes = []
    for (level, column, row), _ in found:
        x, y = pressure(column / 2**level), pressure(row / 2**level)
        width, height = pressure((column + 1) / 2**level) - x, pressure((row + 1) / 2**level) - y
        boxes.append(Rectangle((x, y), width, height))
    colours = ["#1a1a1a" if leaf.regime < 0 else COLOURS[leaf.regime] for leaf in found]
    axes.add_collection(PatchCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.4))
    axes.set_xlim(LOWEST_PRESSURE, HIGHEST_PRESSURE)
    axes.set_ylim(LOWEST_PRESSURE, HIGHEST_PRESSURE)
    axes.set_xlabel("O$_2$ pressure (bar)", fontsize=12)
    axes.set_ylabel("CO pressure (bar)", fontsize=12)
    names = ("mostly bare", "covered by CO", "covered by O")
    handles = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, names, strict=True)]
    axes.legend(handles=handles, loc="upper left")
    axes.set_title(f"CO oxidation on platinum at {temperature:g} K: {len(found):,} squares", fontsize=12)
    figure.savefig(path, dpi=150)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Borders between the regimes of CO oxidation.")
    parser.add_argument(
        "--levels", type=int, default=7, help="how often a square is cut, from 3 to 12 (default: 7)"
    )
    parser.add_argument("--temperature", type=float, default=DEFAULT_TEMPERATURE, help="in K")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="draw the map to this file")
    options = parser.parse_args(arguments)
    if not COARSEST <= options.levels <= 12:
        parser.error(f"--levels must be from {COARSEST} to 12, not {options.levels}")
    if not 400.0 <= options.temperature <= 1500.0:
        parser.error(f"--temperature must be from 400 to 1500 K, not {options.temperature:g}")
    return options


def main() -> None:
    """Refine the map, and print what it took."""
    options = parse_arguments()
    with Farm():
        result = refine.submit(Square(0, 0, 0), options.levels, options.temperature).result()
    found = list(leaves(result))
    border = sum(leaf.regime < 0 for leaf in found)
    squares = 4**options.levels
    print(f"squares      {len(found):,}, of them {border:,} on a border")
    print(f"a full map   {squares:,} squares of the finest level: {squares / len(found):.0f} times as many")
    for index, name in enumerate(REGIMES):
        area = sum(4.0**-leaf.square.level for leaf in found if leaf.regime == index)
        print(f"{name:<12} {area:.1%} of the map")
    if options.output is not None:
        save_picture(found, options.temperature, options.output)
        print(f"picture      {options.output}")


if __name__ == "__main__":
    main()
