"""Map the turnover frequency (TOF) of CO oxidation over the O2 and CO pressures.

Every point is a mean-field microkinetic model, solved for its steady state, and every row of points
is one task; `over` makes one array of the rows. Start it on all cores, on sixteen ranks or in one
process; the map is the same, down to the last bit::

    python -m taskfarm run -n auto examples/tof_map.py
    mpiexec -np 16 python -m taskfarm run examples/tof_map.py --size 2000
    python examples/tof_map.py --size 100 --output tof_map.png

The mechanism is Langmuir-Hinshelwood, on one kind of site ``*``, without interactions::

    CO + *     <-> CO*         adsorption, desorption
    O2 + 2 *   <-> 2 O*        dissociative adsorption, associative desorption
    CO* + O*    -> CO2 + 2 *   surface reaction; CO2 leaves at once

Its numbers belong to one published mechanism for platinum [1]_, and were read from the file
``ptcombust`` of the Cantera distribution: site density, desorption of CO and O2, reaction. The
sticking coefficient of CO is listed as such in [2]_; that of O2 is the rate constant of [1]_
(1.8e21 cm^5 mol^-2 s^-1 K^0.5) as a sticking coefficient, rounded. Left out of [1]_: desorption
energy of O2 that falls by 60 kJ/mol times the coverage, and CO2*, which desorbs fast.

.. [1] O. Deutschmann et al., Symp. (Int.) Combust. 26 (1996) 1747-1754.
.. [2] R. Quiceno et al., Appl. Catal. A 303 (2006) 166-176.
.. [3] C. T. Kelley, D. E. Keyes, SIAM J. Numer. Anal. 35 (1998) 508-523.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep, thread_time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskfarm import Farm, task

BOLTZMANN = 1.380649e-23  # J/K
AVOGADRO = 6.02214076e23  # 1/mol
GAS_CONSTANT = BOLTZMANN * AVOGADRO  # J/(mol K)

SITE_AREA = 1.0 / (2.7063e-5 * AVOGADRO)  # m^2, from the site density in mol/m^2 [1]
MASS_CO = 28.010e-3 / AVOGADRO  # kg
MASS_O2 = 31.998e-3 / AVOGADRO  # kg
STICKING_CO = 0.84  # [2]
STICKING_O2_AT_300_K = 0.07  # falls as 1/T [1]
PREFACTOR = 1.0e13  # 1/s, of all three surface steps; 3.7e21 cm^2/(mol s) per site density [1]
BARRIER_CO_DESORPTION = 125.5e3  # J/mol [1]
BARRIER_O2_DESORPTION = 213.2e3  # J/mol, at low coverage [1]
BARRIER_REACTION = 105.0e3  # J/mol [1]

DEFAULT_SIZE = 800
DRAWN_ROWS, DRAWN_COLUMNS = 12, 60  # of the map in characters

LOWEST_PRESSURE, HIGHEST_PRESSURE = 1e-5, 0.5  # bar
DEFAULT_TEMPERATURE = 900.0  # K; CO-covered, oxygen-covered and bare regions all fit on the map
TOLERANCE = 1e-12  # of each balance, relative to its largest rate
LARGEST_CHANGE = 0.1  # of a coverage in one step, so that the path from the clean surface is kept
MOST_STEPS = 500  # about ten times what is needed

FloatArray = NDArray[np.float64]


class RateConstants(NamedTuple):
    """Rates per site at coverage one, in 1/s."""

    co_adsorption: float
    co_desorption: float
    o2_adsorption: float
    o2_desorption: float
    reaction: float


def impingement(pressure: float, mass: float, temperature: float) -> float:
    """Hertz-Knudsen: hits on one site in 1/s, for a pressure in bar, a mass in kg, and K."""
    return pressure * 1e5 * SITE_AREA / math.sqrt(2.0 * math.pi * mass * BOLTZMANN * temperature)


def arrhenius(barrier: float, temperature: float) -> float:
    """Rate constant in 1/s of a surface step with a barrier in J/mol at a temperature in K."""
    return PREFACTOR * math.exp(-barrier / (GAS_CONSTANT * temperature))


def rate_constants(p_o2: float, p_co: float, temperature: float) -> RateConstants:
    """Rate constants in 1/s for pressures in bar and a temperature in K."""
    sticking_o2 = STICKING_O2_AT_300_K * 300.0 / temperature
    return RateConstants(
        co_adsorption=STICKING_CO * impingement(p_co, MASS_CO, temperature),
        co_desorption=arrhenius(BARRIER_CO_DESORPTION, temperature),
        o2_adsorption=sticking_o2 * impingement(p_o2, MASS_O2, temperature),
        o2_desorption=arrhenius(BARRIER_O2_DESORPTION, temperature),
        reaction=arrhenius(BARRIER_REACTION, temperature),
    )


def balances(k: RateConstants, co: float, o: float, free: float) -> tuple[float, ...]:
    """Rates of change of the two coverages, then the largest single rate in each; all in 1/s.

    `co`, `o` and `free` are the fractions of the sites with CO*, with O*, and bare.
    """
    adsorb_co = k.co_adsorption * free
    desorb_co = k.co_desorption * co
    adsorb_o = 2.0 * k.o2_adsorption * free * free
    desorb_o = 2.0 * k.o2_desorption * o * o
    react = k.reaction * co * o
    return (
        adsorb_co - desorb_co - react,
        adsorb_o - desorb_o - react,
        max(adsorb_co, desorb_co, react),
        max(adsorb_o, desorb_o, react),
    )


def implicit_step(
    k: RateConstants, co: float, o: float, free: float, rates: tuple[float, ...], dt: float
) -> tuple[float, float]:
    """Change of both coverages in a linearly implicit Euler step: x of (1/dt - J) x = F.

    ``F`` are the balances and ``J`` is their Jacobian. With dt to infinity, a Newton step.
    """
    from_o2 = 4.0 * k.o2_adsorption * free
    a11 = 1.0 / dt + k.co_adsorption + k.co_desorption + k.reaction * o
    a12 = k.co_adsorption + k.reaction * co
    a21 = from_o2 + k.reaction * o
    a22 = 1.0 / dt + from_o2 + 4.0 * k.o2_desorption * o + k.reaction * co
    determinant = a11 * a22 - a12 * a21
    if determinant <= 0.0:
        # Too long a step where trajectories part: it would go backwards. The caller rejects this.
        return math.inf, math.inf
    d_co = (a22 * rates[0] - a12 * rates[1]) / determinant
    d_o = (a11 * rates[1] - a21 * rates[0]) / determinant
    return d_co, d_o


def steady_state(k: RateConstants) -> tuple[float, float, float]:
    """Coverages at the steady state that a clean surface reaches.

    Pseudo-transient continuation [3]_: implicit time steps that grow as the rates of change
    fall ("switched evolution relaxation") and so turn into Newton's method near the end. A step
    that leaves [0, 1], or changes a coverage by too much, is taken again with a shorter time.
    Where two stable states exist (some pressures below about 850 K), this start decides which
    one is found.

    Returns
    -------
    (co, o, free) : tuple of float
        Fractions of the sites with CO*, with O*, and bare.

    Raises
    ------
    RuntimeError
        If the balances are not solved after `MOST_STEPS` steps.
    """
    # The bare fraction is a variable of its own, not 1 - co - o: on a full surface it is many
    # orders of magnitude smaller than one, and the subtraction would leave nothing of it.
    co, o, free = 0.0, 0.0, 1.0
    dt = 0.1 / (k.co_adsorption + k.co_desorption + 4.0 * k.o2_adsorption)
    rates = balances(k, co, o, free)
    for _ in range(MOST_STEPS):
        d_co, d_o = implicit_step(k, co, o, free, rates, dt)
        new = (co + d_co, o + d_o, free - (d_co + d_o))
        if min(new) < 0.0 or max(abs(d_co), abs(d_o)) > LARGEST_CHANGE:
            dt *= 0.25
            continue
        before = max(abs(rates[0]), abs(rates[1]))
        co, o, free = new
        rates = balances(k, co, o, free)
        if abs(rates[0]) <= TOLERANCE * rates[2] and abs(rates[1]) <= TOLERANCE * rates[3]:
            return co, o, free
        # At least doubled, or a slow build-up of one species would hold the steps short for ever.
        dt *= min(10.0, max(2.0, before / max(abs(rates[0]), abs(rates[1]))))
    raise RuntimeError(f"no steady state after {MOST_STEPS} steps for {k}")


def tof(p_o2: float, p_co: float, temperature: float) -> tuple[float, float, float]:
    """Turnover frequency at one pair of pressures.

    Parameters
    ----------
    p_o2, p_co, temperature : float
        Partial pressures in bar; temperature of gas and surface in K.

    Returns
    -------
    (tof, co, o) : tuple of float
        CO2 molecules per site and second, coverages of CO* and O*.
    """
    k = rate_constants(p_o2, p_co, temperature)
    co, o, _ = steady_state(k)
    return k.reaction * co * o, co, o


@task
def row(p_co: float, size: int, temperature: float) -> FloatArray:
    """All points of the map at one CO pressure in bar, for `size` O2 pressures and a temperature in K.

    Returns
    -------
    ndarray of float64, shape (size, 4)
        What `tof` returns, by O2 pressure, and the processor time in s that a point took on average.
    """
    # With more processes than cores, a clock on the wall would also count the wait for a core, and
    # the speed-up would look better than it is.
    started = thread_time()
    values = np.array([tof(p_o2, p_co, temperature) for p_o2 in pressure_axis(size).tolist()])
    return np.column_stack([values, np.full(size, (thread_time() - started) / size)])


@task
def cores_of_worker(_: int) -> set[tuple[str, int]]:
    """The host, and each core that this worker may use."""
    # Long enough that each worker gets one of these.
    sleep(0.01)
    return {(socket.gethostname(), core) for core in os.sched_getaffinity(0)}


def pressure_axis(size: int) -> FloatArray:
    """Pressures in bar, shape (size,), evenly spaced in the logarithm."""
    return np.geomspace(LOWEST_PRESSURE, HIGHEST_PRESSURE, size)


def compute_map(size: int, temperature: float) -> FloatArray:
    """Run one task per row, for `size` points along either axis and a temperature in K.

    Returns
    -------
    ndarray of float64, shape (size, size, 4)
        What `row` returns, by CO pressure.
    """
    points: FloatArray = row.over(pressure_axis(size), size, temperature)
    return points


def regimes(values: FloatArray, temperature: float) -> str:
    """Draw in characters which species holds most sites, the highest CO pressure on top."""
    size = len(values)
    lines = [f"CO oxidation on platinum at {temperature:g} K: what covers the surface"]
    for height in range(DRAWN_ROWS):
        index = round((DRAWN_ROWS - 1 - height) / (DRAWN_ROWS - 1) * (size - 1))
        columns = [round(at / (DRAWN_COLUMNS - 1) * (size - 1)) for at in range(DRAWN_COLUMNS)]
        signs = ["C" if co > 0.5 else "O" if o > 0.5 else "." for _, co, o in values[index, columns]]
        label = {0: f"{HIGHEST_PRESSURE:g} bar CO", DRAWN_ROWS - 1: f"{LOWEST_PRESSURE:g} bar CO"}
        lines.append(f"{label.get(height, ''):>12}  {''.join(signs)}")
    left, right = f"{LOWEST_PRESSURE:g} bar O2", f"{HIGHEST_PRESSURE:g} bar O2"
    lines.append(f"{'':12}  {left:<{DRAWN_COLUMNS - len(right)}}{right}")
    lines.append(f"{'':12}  C: CO, which slows the reaction; O: oxygen; .: mostly bare, where it is fast")
    return "\n".join(lines)


def save_picture(values: FloatArray, temperature: float, path: Path) -> None:
    """Draw a map: TOF in 1/s and coverages of CO* and O*, shape (size, size, 3), CO pressure first."""
    # Imported here, so that only the process that draws needs matplotlib.
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    axis = pressure_axis(len(values))
    rate, co, o = values[..., 0], values[..., 1], values[..., 2]
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    norm = LogNorm(rate.min(), rate.max())
    mesh = axes.pcolormesh(axis, axis, rate, norm=norm, cmap="viridis", shading="nearest")
    bar = figure.colorbar(mesh, ax=axes)
    bar.set_label("turnover frequency (CO$_2$ per site and second)", fontsize=12)
    for coverage, style in ((co, "solid"), (o, "dashed")):
        if coverage.min() < 0.5 < coverage.max():
            axes.contour(axis, axis, coverage, [0.5], colors="white", linestyles=style)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "boxstyle": "round,pad=0.35"}
    for region, text in (
        (co > 0.5, "CO-covered, poisoned:\nCO slows the reaction"),
        (o > 0.5, "O-covered:\nO$_2$ slows the reaction"),
        ((co < 0.5) & (o < 0.5), "mostly bare, reactive:\nO$_2$ sets the pace"),
    ):
        if region.mean() > 0.08:  # large enough to hold the text
            row, column = (int(np.median(indices)) for indices in np.nonzero(region))
            axes.text(axis[column], axis[row], text, ha="center", va="center", size=11, bbox=box)
    axes.set_xlabel("O$_2$ pressure (bar)", fontsize=12)
    axes.set_ylabel("CO pressure (bar)", fontsize=12)
    title = f"CO oxidation on platinum at {temperature:g} K, mean-field model"
    axes.set_title(f"{title}\nlines: half of the sites hold CO (solid), O (dashed)", fontsize=11)
    figure.savefig(path, dpi=150)


def report(points: FloatArray, wall: float, workers: int, cores: int) -> None:
    """Print the numbers of a map that took `wall` seconds, and how fast it was."""
    rate = points[..., 0]
    axis = pressure_axis(len(rate))
    for name, index in (("lowest TOF ", rate.argmin()), ("highest TOF", rate.argmax())):
        at, column = divmod(int(index), len(rate))
        pressures = f"{axis[column]:.2e} bar O2, {axis[at]:.2e} bar CO"
        print(f"{name}  {rate[at, column]:.3e} 1/s at {pressures}")
    print(f"checksum     {float(rate.sum())!r} (sum of all TOFs)")
    print()
    spent = float(points[..., 3].sum())
    print(f"grid         {len(rate)} x {len(rate)} points; each of the {len(rate)} rows is a task")
    print(f"ran on       {counted(workers, 'worker')} and {counted(cores, 'core')}")
    print(f"task times   {spent:.2f} s of processor time in all, {spent / len(rate) * 1e3:.2f} ms each")
    print(f"wall time    {wall:.2f} s")
    most = counted(cores, "core") if cores <= workers else counted(workers, "worker")
    print(
        f"speed-up     {spent / wall:.2f} (task times / wall time), at most {min(workers, cores)} on {most}"
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Turnover frequency of CO oxidation, as a map.")
    parser.add_argument(
        "--size",
        type=int,
        default=DEFAULT_SIZE,
        help="points along either axis (default: %(default)s, some 30 s of one core)",
    )
    parser.add_argument(
        "--temperature", type=float, default=DEFAULT_TEMPERATURE, help="in K (default: %(default)g)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.png", help="draw the map to this file (needs matplotlib)"
    )
    parser.add_argument("--values", type=Path, help="save the TOFs to this file (.npy)")
    options = parser.parse_args(arguments)
    if options.size < 2:
        parser.error(f"--size must be at least 2, not {options.size}")
    if not 400.0 <= options.temperature <= 1500.0:
        parser.error(f"--temperature must be from 400 to 1500 K, not {options.temperature:g}")
    for path in (options.output, options.values):
        # Now, rather than after the work is done.
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"not a file in an existing folder: {path}")
    return options


def main() -> None:
    """Compute the map, print it, and save what was asked for."""
    options = parse_arguments()
    with Farm() as farm:
        started = perf_counter()
        points = compute_map(options.size, options.temperature)
        wall = perf_counter() - started
        workers = farm.num_workers
        cores = set[tuple[str, int]]().union(*cores_of_worker.map(range(4 * workers), chunksize=1))
    values = points[..., :3]
    print(regimes(values, options.temperature), end="\n\n")
    report(points, wall, workers, len(cores))
    if options.values is not None:
        with options.values.open("wb") as file:  # given a path, np.save may add a suffix
            np.save(file, values[..., 0])
        print(f"values       {options.values}")
    if options.output is not None:
        save_picture(values, options.temperature, options.output)
        print(f"picture      {options.output}")


if __name__ == "__main__":
    main()
