"""Run a kernel written in C as a task: the magnetisation of the Ising model against the temperature.

The farm's initializer compiles the kernel with ``cc`` on each host at first use, in a folder for
temporary files there. The task loads it with `ctypes`, which lets go of the interpreter while C runs::

    mpiexec -np 16 python -m taskfarm run examples/c_kernel.py
    python examples/c_kernel.py --size 16 --sweeps 200

The kernel computes with whole numbers alone, so it gives what the same steps in Python give
(``--python``), to the last digit, on any machine. The picture shows the exact result for an endless
lattice beside it [1]_.

.. [1] C. N. Yang, Phys. Rev. 85 (1952) 808-816.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

from taskfarm import Farm, task
from taskfarm.errors import InitializerFailed

CRITICAL = 2.0 / math.log(1.0 + math.sqrt(2.0))  # temperature at which the order is lost; coupling 1
COOLEST, HOTTEST = 1.2, 3.6
FLAGS = ("-O2", "-shared", "-fPIC")
MASK = (1 << 64) - 1

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>

/* Metropolis sweeps over a periodic square lattice that begins with all spins up. Returns the sum of
   |magnetisation| over the last three quarters of the sweeps, or -1 if there is no memory.
   A flip that costs 4 or 8 is taken if the upper 32 bits of the generator are below accept[0] or [1]. */
int64_t magnetisation(int64_t size, int64_t sweeps, uint64_t state, const uint64_t *accept)
{
    int64_t total = 0, up = size * size;
    signed char *spin = malloc(size * size);
    if (!spin) return -1;
    for (int64_t i = 0; i < size * size; i++) spin[i] = 1;
    for (int64_t sweep = 0; sweep < sweeps; sweep++) {
        for (int64_t row = 0; row < size; row++)
            for (int64_t column = 0; column < size; column++) {
                signed char *here = spin + row * size + column;
                int around = spin[(row + 1) % size * size + column]
                           + spin[(row + size - 1) % size * size + column]
                           + spin[row * size + (column + 1) % size]
                           + spin[row * size + (column + size - 1) % size];
                int cost = *here * around;  /* half of the energy */
                state ^= state << 13; state ^= state >> 7; state ^= state << 17;  /* xorshift64 */
                if (cost <= 0 || (state >> 32) < accept[cost / 4]) {
                    *here = -*here;
                    up += 2 * *here;
                }
            }
        if (4 * sweep >= sweeps) total += up < 0 ? -up : up;
    }
    free(spin);
    return total;
}
"""

loaded: Callable[..., int] | None = None  # the kernel of this process, once a task has asked for it


def compiled(folder: Path) -> Path:
    """Compile the kernel, unless another process of this host has done so.

    Parameters
    ----------
    folder : Path
        Where it is kept; made if it is not there.

    Raises
    ------
    RuntimeError
        There is no compiler, or it failed; says so in one line.
    """
    compiler = os.environ.get("CC", "cc")
    words = [compiler, *FLAGS]
    digest = hashlib.sha256("\0".join([SOURCE, *words, platform.machine()]).encode()).hexdigest()[:16]
    library = folder / f"kernel-{digest}.so"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user, so nothing is loaded from it")
    if library.exists():
        return library
    if shutil.which(compiler) is None:
        raise RuntimeError(
            f"no C compiler: there is no {compiler!r} on {platform.node()}; install one or name it in CC"
        )
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source = Path(place, "kernel.c")
        source.write_text(SOURCE)
        words += ["-o", str(source.with_suffix(".so")), str(source)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or [
                "it does not say why"
            ]
            raise RuntimeError(f"{compiler} failed on {platform.node()}: {lines[0]}")
        # All at once: other ranks of this host may be doing the same.
        source.with_suffix(".so").replace(library)
    return library


def cache() -> Path:
    """A folder of this user on this host; a home may be shared by hosts with other processors."""
    return Path(tempfile.gettempdir(), f"taskfarm-c-kernel-{os.getuid()}")


def prepare() -> None:
    """Compile the kernel on this host: the farm's initializer."""
    compiled(cache())


def kernel() -> Callable[..., int]:
    """The kernel, loaded at the first call in this process."""
    global loaded
    if loaded is None:
        function = ctypes.CDLL(str(compiled(cache()))).magnetisation
        function.restype = ctypes.c_int64
        pointer = ctypes.POINTER(ctypes.c_uint64)
        function.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_uint64, pointer]
        loaded = function
    return loaded


def magnetisation(size: int, sweeps: int, state: int, accept: Sequence[int]) -> int:
    """The kernel in Python, step by step."""
    total, up = 0, size * size
    spins = [[1] * size for _ in range(size)]
    for sweep in range(sweeps):
        for row, line in enumerate(spins):
            below, above = spins[(row + 1) % size], spins[row - 1]
            for column, here in enumerate(line):
                around = below[column] + above[column] + line[(column + 1) % size] + line[column - 1]
                state ^= state << 13 & MASK
                state ^= state >> 7
                state ^= state << 17 & MASK
                if here * around <= 0 or state >> 32 < accept[here * around // 4]:
                    line[column] = -here
                    up -= 2 * here
        if 4 * sweep >= sweeps:
            total += abs(up)
    return total


@task
def magnetise(temperature: float, size: int, sweeps: int, seed: int, in_python: bool = False) -> float:
    """Mean of |magnetisation| of a spin at one temperature.

    Parameters
    ----------
    temperature : float
        In units of the coupling.
    size : int
        Spins along either side of the lattice.
    sweeps : int
        Attempts to flip each spin; the first quarter is not counted.
    seed : int
        Of the random numbers, from 1 on.
    in_python : bool
        Whether to take the same steps in Python.
    """
    # A flip costs 4 or 8; the odd multiples of 2 do not occur with four neighbours.
    thresholds = [int(2.0**32 * math.exp(-cost / temperature)) for cost in (4.0, 8.0)]
    state = seed * 0x9E3779B97F4A7C15 & MASK or 1
    function = magnetisation if in_python else kernel()
    total = function(size, sweeps, state, (ctypes.c_uint64 * 2)(*thresholds))
    if total < 0:
        raise MemoryError(f"no memory for {size} x {size} spins")
    counted = sweeps - (sweeps + 3) // 4
    return total / (counted * size * size)


def exact(temperature: float) -> float:
    """The magnetisation of an endless lattice."""
    if temperature >= CRITICAL:
        return 0.0
    return float((1.0 - math.sinh(2.0 / temperature) ** -4) ** 0.125)


def temperatures(count: int) -> list[float]:
    """Equal steps from the coolest to the hottest."""
    step = (HOTTEST - COOLEST) / (count - 1)
    return [COOLEST + step * index for index in range(count)]


def save_picture(axis: Sequence[float], found: Sequence[float], size: int, path: Path) -> None:
    """Draw the magnetisation beside the exact one."""
    # Imported here, so that only the process that draws needs matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    fine = [COOLEST + (HOTTEST - COOLEST) * index / 2000 for index in range(2001)]
    axes.plot(fine, [exact(t) for t in fine], color="0.6", label="endless lattice, exact")
    axes.plot(axis, found, ".", color="tab:red", label=f"{size} x {size} spins")
    axes.set(xlabel="temperature / coupling", ylabel="magnetisation of a spin")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description="Magnetisation of the Ising model, by a kernel in C.")
    parser.add_argument("--size", type=int, default=64, help="spins along either side")
    parser.add_argument("--sweeps", type=int, default=4000, help="attempts to flip each spin")
    parser.add_argument("--temperatures", type=int, default=97, help="points of the curve")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--python", action="store_true", help="run the same steps in Python instead")
    parser.add_argument("--output", type=Path, default=Path("c_kernel.png"), help="the picture")
    parser.add_argument("--no-picture", action="store_true", help="only print the numbers")
    options = parser.parse_args(arguments)
    for name, least in (("size", 2), ("sweeps", 4), ("temperatures", 2), ("seed", 1)):
        if (value := getattr(options, name)) < least:
            parser.error(f"--{name} must be at least {least}, not {value}")
    if options.output.is_dir() or not options.output.parent.is_dir():
        # Now, rather than after the work is done.
        parser.error(f"not a file in an existing folder: {options.output}")
    return options


def calls(options: argparse.Namespace) -> Iterator[tuple[float, int, int, int, bool]]:
    """The arguments of all tasks; each has a seed of its own."""
    for index, temperature in enumerate(temperatures(options.temperatures)):
        yield temperature, options.size, options.sweeps, options.seed + index, options.python


def main() -> None:
    """Compute the curve, print the numbers, save the picture."""
    options = parse_arguments()
    started = perf_counter()
    try:
        with Farm(initializer=None if options.python else prepare) as farm:
            found = list(magnetise.starmap(calls(options)))
            workers = farm.num_workers
    except InitializerFailed as error:
        # Its last line says why; those before say where.
        raise SystemExit(f"c_kernel: {str(error).strip().splitlines()[-1]}") from None
    print(f"lattice      {options.size} x {options.size} spins, {options.sweeps} sweeps, {workers} workers")
    print(f"wall time    {perf_counter() - started:.3f} s")
    print(f"coolest      {found[0]:.6f} (endless lattice: {exact(COOLEST):.6f})")
    print(f"checksum     {math.fsum(found)!r} (sum of all magnetisations)")
    if not options.no_picture:
        save_picture(temperatures(options.temperatures), found, options.size, options.output)
        print(f"saved        {options.output}")


if __name__ == "__main__":
    main()
