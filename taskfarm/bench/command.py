"""``python -m taskfarm bench``: what this allocation can do, and what that means. Runs as a job."""

import argparse
import json
import math
import platform
import re
import sys
from collections.abc import Sequence

from taskfarm import __version__
from taskfarm.bench import measure
from taskfarm.job.farm import Farm

SECONDS = 30.0
"""How long the measurements take by default, about."""

PAUSE = 0.05
"""Seconds without work before some of the round trips."""

SIZES = {"8_MB": 8_000_000, "64_KB": 64_000}
"""Bytes of the arrays that travel."""

Figures = dict[str, float]
"""The unit is in the name of the figure."""

ROWS = {
    "round_trip_p50_us": ("round trip of one task, half are below", "us"),
    "round_trip_p99_us": ("round trip of one task, 99 % are below", "us"),
    "round_trip_after_50_ms_idle_p50_us": ("the same after 50 ms without work, half are below", "us"),
    "submit_tasks_per_s": ("empty tasks through submit", "tasks/s"),
    "map_tasks_per_s": ("empty tasks through map", "tasks/s"),
    "arrays_8_MB_one_by_one_MB_per_s": ("arrays of 8 MB there and back, one by one", "MB/s"),
    "arrays_8_MB_map_MB_per_s": ("arrays of 8 MB there and back, through map", "MB/s"),
    "arrays_64_KB_one_by_one_MB_per_s": ("arrays of 64 KB there and back, one by one", "MB/s"),
    "arrays_64_KB_map_MB_per_s": ("arrays of 64 KB there and back, through map", "MB/s"),
    "metg_us": ("shortest tasks in a map that keep half of each worker busy", "us"),
    "idle_cpu_s_per_worker_and_s": ("CPU time of a waiting worker in a second", "s"),
}
"""What is measured, and how to print it."""


def layout(farm: Farm) -> Figures:
    """How many ranks, workers, hosts and cores there are."""
    seen = measure.census(farm, farm.num_workers).values()
    cores = {host: frozenset[int]().union(*(s.cores for s in seen if s.host == host)) for host, *_ in seen}
    on = {host: sum(s.host == host for s in seen) for host in cores}
    return {
        "ranks": farm.num_workers + 1,
        "workers": farm.num_workers,
        "hosts": len(cores),
        "cores": sum(map(len, cores.values())),
        "workers_at_a_time": sum(min(on[host], len(cores[host])) for host in cores),
    }


def latencies(farm: Farm, seconds: float) -> Figures:
    """Round trips, back to back and after a pause."""
    trial = measure.round_trips(farm, 50)
    rate = 1 / measure.quantile(trial, 0.5)
    hot = measure.round_trips(farm, measure.fitting(rate, 0.05 * seconds, 20_000, 200))
    cold = measure.round_trips(farm, measure.fitting(1 / PAUSE, 0.1 * seconds, 100, 5), PAUSE)
    return {
        "round_trip_p50_us": 1e6 * measure.quantile(hot, 0.5),
        "round_trip_p99_us": 1e6 * measure.quantile(hot, 0.99),
        "round_trip_after_50_ms_idle_p50_us": 1e6 * measure.quantile(cold, 0.5),
    }


def rates(farm: Farm, seconds: float) -> Figures:
    """Tasks a second, and MB a second."""
    found: Figures = {}
    rate = measure.submits(farm, 500)
    count = measure.fitting(rate, 0.1 * seconds, 200_000, 500)
    found["submit_tasks_per_s"] = measure.submits(farm, count)
    rate = measure.mapped(farm, 20_000)
    count = measure.fitting(rate, 0.1 * seconds, 10_000_000, 20_000)
    found["map_tasks_per_s"] = measure.mapped(farm, count)
    for name, size in SIZES.items():
        for way, one_by_one in (("one_by_one", True), ("map", False)):
            trial = measure.arrays(farm, size, 8, one_by_one)
            count = measure.fitting(1e6 * trial / (2 * size), 0.04 * seconds, 20_000, 8)
            found[f"arrays_{name}_{way}_MB_per_s"] = measure.arrays(farm, size, count, one_by_one)
    return found


def figures(farm: Farm, seconds: float) -> Figures:
    """All that there is to know, in about so many seconds."""
    found = layout(farm)
    found |= latencies(farm, seconds)
    found |= rates(farm, seconds)
    found["metg_us"] = 1e6 * measure.metg(farm, int(found["workers_at_a_time"]), 0.005 * seconds)
    found["idle_cpu_s_per_worker_and_s"] = measure.idle(farm, farm.num_workers, 0.15 * seconds)
    return found


def number(value: float) -> str:
    """Three digits, and the thousands apart."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(microseconds: float) -> str:
    """In the unit that suits, with two digits."""
    unit, size = next((pair for pair in (("s", 1e6), ("ms", 1e3)) if microseconds >= pair[1]), ("us", 1.0))
    return f"{float(f'{microseconds / size:.2g}'):g} {unit}"


def about() -> dict[str, str]:
    """The versions that were measured."""
    # Not at the head of the file: it starts MPI.
    from taskfarm.transport import mpi

    library = mpi.library()
    version = re.match(r"(Open MPI|MPICH|Intel\S* MPI)\D+([\d.]+)", library)
    return {
        "taskfarm": __version__,
        "python": platform.python_version(),
        "mpi": " ".join(version.groups()) if version else library[:40],
    }


def counted(count: float, word: str) -> str:
    """A number of things."""
    return f"{count:.0f} {word}{'s' * (count != 1)}"


def heading(found: Figures, versions: dict[str, str]) -> str:
    """What was measured."""
    return (
        f"taskfarm {versions['taskfarm']}, Python {versions['python']}, {versions['mpi']}\n"
        f"{counted(found['ranks'], 'rank')}: rank 0 and {counted(found['workers'], 'worker')} on "
        f"{counted(found['hosts'], 'host')} with {counted(found['cores'], 'core')}"
    )


def table(found: Figures) -> str:
    """The figures, one a line."""
    width = max(len(words) for words, _ in ROWS.values())
    return "\n".join(
        f"{words:<{width}}  {number(found[k]):>12} {unit}" for k, (words, unit) in ROWS.items()
    )


def on_length(found: Figures) -> str:
    """How long tasks should last."""
    shortest = found["metg_us"]
    if math.isinf(shortest):
        return (
            f"not even tasks of {measure.LONGEST:g} s keep half of each worker busy: others use the cores."
        )
    if shortest <= 1e6 * measure.SHORTEST:
        return f"even tasks of {duration(shortest)} in a map keep half of each worker busy."
    return (
        f"tasks should last at least {duration(shortest)}; below that more than half of the workers' time "
        "goes into handing them out, so let one task do the work of several. "
        f"From {duration(10 * shortest)} on it is about a tenth."
    )


def meaning(found: Figures) -> list[str]:
    """What the figures mean for a job, in sentences."""
    ranks, workers = counted(found["ranks"], "rank"), counted(found["workers"], "worker")
    bulk = found["arrays_8_MB_map_MB_per_s"]
    lines = [
        f"On these {ranks} {on_length(found)}",
        f"A call through submit that is awaited at once takes {duration(found['round_trip_p50_us'])}, and "
        f"{duration(found['round_trip_after_50_ms_idle_p50_us'])} after a pause: put many short calls into "
        "a map, or await them later.",
        f"Tasks that take and return 8 MB keep {workers} busy if each computes for at least "
        f"{duration(found['workers'] * 16e6 / bulk)}.",
        f"A worker that waits uses {100 * found['idle_cpu_s_per_worker_and_s']:.2g} % of a core.",
    ]
    if found["ranks"] > found["cores"]:
        cores = counted(found["cores"], "core")
        lines.append(f"The {ranks} share {cores}: while all workers work, rank 0 has to wait for its turn.")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m taskfarm bench")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(argv)
    with Farm() as farm:
        found = figures(farm, options.seconds)
    if options.json:
        # JSON has no infinity.
        numbers = {key: value if math.isfinite(value) else None for key, value in found.items()}
        print(json.dumps(about() | numbers, indent=2))
    else:
        print(heading(found, about()), "", table(found), "", *meaning(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
