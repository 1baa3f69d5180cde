"""``python -m taskfarm bench``: measures an allocation and explains the results. Runs as a job."""

import argparse
import json
import math
import platform
import re
import sys
from collections.abc import Sequence

from taskfarm import __version__, task
from taskfarm.bench import measure
from taskfarm.bench.tasks import group_seconds, same
from taskfarm.errors import UsageError
from taskfarm.job.farm import Farm

SECONDS = 30.0
"""Approximate duration of all measurements by default."""

PAUSE = 0.05
"""Idle seconds before some of the round trips."""

GANGS, GROUPS = 100, 10
"""Tasks on all workers, and communicators that each of some others makes."""

SIZES = {"8_MB": 8_000_000, "64_KB": 64_000}
"""Bytes of the arrays that are sent."""

Figures = dict[str, float]
"""Figures by name, which contains the unit."""

ROWS = {
    "round_trip_p50_us": ("round-trip time of a task, median", "us"),
    "round_trip_p99_us": ("round-trip time of a task, 99th percentile", "us"),
    "round_trip_after_50_ms_idle_p50_us": ("round-trip time after 50 ms idle, median", "us"),
    "submit_tasks_per_s": ("empty tasks through submit", "tasks/s"),
    "map_tasks_per_s": ("empty tasks through map", "tasks/s"),
    "arrays_8_MB_one_by_one_MB_per_s": ("arrays of 8 MB to a worker and back, one by one", "MB/s"),
    "arrays_8_MB_map_MB_per_s": ("arrays of 8 MB to a worker and back, through map", "MB/s"),
    "arrays_64_KB_one_by_one_MB_per_s": ("arrays of 64 KB to a worker and back, one by one", "MB/s"),
    "arrays_64_KB_map_MB_per_s": ("arrays of 64 KB to a worker and back, through map", "MB/s"),
    "round_trip_on_all_workers_p50_us": ("round-trip time of a task on all workers, median", "us"),
    "create_group_us": ("communicator of all workers (Create_group)", "us"),
    "metg_us": ("shortest tasks in a map at 50 % efficiency (METG)", "us"),
    "idle_cpu_s_per_worker_and_s": ("CPU time of an idle worker per second", "s"),
}
"""Label and unit of each figure."""


def layout(farm: Farm) -> Figures:
    """Count the ranks, workers, hosts and cores."""
    cores: dict[str, set[int]] = {}
    workers: dict[str, int] = {}
    for info in measure.worker_infos(farm, farm.num_workers).values():
        cores.setdefault(info.host, set()).update(info.cores)
        workers[info.host] = workers.get(info.host, 0) + 1
    return {
        "ranks": farm.num_workers + 1,
        "workers": farm.num_workers,
        "hosts": len(cores),
        "cores": sum(map(len, cores.values())),
        "workers_at_a_time": sum(min(workers[host], len(cores[host])) for host in cores),
    }


def latencies(farm: Farm, seconds: float) -> Figures:
    """Measure round-trip times, back to back and after a pause."""
    trial = measure.round_trips(farm, 50)
    rate = 1 / measure.quantile(trial, 0.5)
    back_to_back = measure.round_trips(farm, measure.fitting(rate, 0.05 * seconds, 20_000, 200))
    paused = measure.round_trips(farm, measure.fitting(1 / PAUSE, 0.1 * seconds, 100, 5), PAUSE)
    return {
        "round_trip_p50_us": 1e6 * measure.quantile(back_to_back, 0.5),
        "round_trip_p99_us": 1e6 * measure.quantile(back_to_back, 0.99),
        "round_trip_after_50_ms_idle_p50_us": 1e6 * measure.quantile(paused, 0.5),
    }


def rates(farm: Farm, seconds: float) -> Figures:
    """Measure tasks/s and MB/s."""
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


def gangs(farm: Farm) -> Figures:
    """Measure what tasks on several ranks cost; nan where there can be none."""
    names = "round_trip_on_all_workers_p50_us", "create_group_us"
    if farm.num_workers < 2:
        return dict.fromkeys(names, math.nan)
    grouping = task(ranks=farm.num_workers)(group_seconds)
    try:
        farm.submit(grouping, 1).result()
    except UsageError:
        return dict.fromkeys(names, math.nan)
    trips = measure.round_trips(farm, GANGS, function=task(ranks=farm.num_workers)(same))
    created = sorted(farm.submit(grouping, GROUPS).result() for _ in range(5))
    return dict(zip(names, (1e6 * measure.quantile(trips, 0.5), 1e6 * created[2]), strict=True))


def figures(farm: Farm, seconds: float) -> Figures:
    """Measure all figures, in about `seconds` seconds."""
    found = layout(farm)
    found |= latencies(farm, seconds)
    found |= rates(farm, seconds)
    found |= gangs(farm)
    found["metg_us"] = 1e6 * measure.metg(farm, int(found["workers_at_a_time"]), 0.005 * seconds)
    found["idle_cpu_s_per_worker_and_s"] = measure.idle(farm, farm.num_workers, 0.15 * seconds)
    return found


def number(value: float) -> str:
    """Format a number with three digits and separators between the thousands."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(microseconds: float) -> str:
    """Format a duration with two digits and a suitable unit."""
    unit, size = "us", 1.0
    if microseconds >= 1e6:
        unit, size = "s", 1e6
    elif microseconds >= 1e3:
        unit, size = "ms", 1e3
    return f"{float(f'{microseconds / size:.2g}'):g} {unit}"


def about() -> dict[str, str]:
    """Return the versions that were measured."""
    # Imported here because this starts MPI.
    from taskfarm.transport import mpi

    library = mpi.library()
    version = re.match(r"(Open MPI|MPICH|Intel\S* MPI)\D+([\d.]+)", library)
    return {
        "taskfarm": __version__,
        "python": platform.python_version(),
        "mpi": " ".join(version.groups()) if version else library[:40],
    }


def counted(count: float, word: str) -> str:
    """Format a count of things, such as ``3 ranks``."""
    return f"{count:.0f} {word}" if count == 1 else f"{count:.0f} {word}s"


def heading(found: Figures, versions: dict[str, str]) -> str:
    """Describe what was measured."""
    return (
        f"taskfarm {versions['taskfarm']}, Python {versions['python']}, {versions['mpi']}\n"
        f"{counted(found['ranks'], 'rank')}: rank 0 and {counted(found['workers'], 'worker')} on "
        f"{counted(found['hosts'], 'host')} with {counted(found['cores'], 'core')}"
    )


def table(found: Figures) -> str:
    """Format the figures, one per line."""
    width = max(len(label) for label, _ in ROWS.values())
    return "\n".join(
        f"{label:<{width}}  {number(found[name]):>12} {unit}" for name, (label, unit) in ROWS.items()
    )


def explain_length(found: Figures) -> str:
    """Explain how long tasks should last."""
    shortest = found["metg_us"]
    if math.isinf(shortest):
        return (
            f"not even tasks of {measure.LONGEST:g} s keep the workers busy for half of the time: other "
            "processes use the cores."
        )
    if shortest <= 1e6 * measure.SHORTEST:
        return f"even tasks of {duration(shortest)} in a map keep the workers busy for half of the time."
    return (
        f"tasks should last at least {duration(shortest)}; with shorter tasks, overhead takes more than "
        "half of the workers' time, so let one task do the work of several. "
        f"From {duration(10 * shortest)} on, overhead takes about a tenth."
    )


def explain(found: Figures) -> list[str]:
    """Explain in sentences what the figures mean for a job."""
    ranks, workers = counted(found["ranks"], "rank"), counted(found["workers"], "worker")
    bulk = found["arrays_8_MB_map_MB_per_s"]
    lines = [
        f"On these {ranks} {explain_length(found)}",
        f"A call through submit that is awaited at once takes {duration(found['round_trip_p50_us'])}, and "
        f"{duration(found['round_trip_after_50_ms_idle_p50_us'])} after a pause: put many short calls into "
        "a map, or await their results later.",
        f"Tasks that take and return 8 MB keep {workers} busy if each computes for at least "
        f"{duration(found['workers'] * 16e6 / bulk)}.",
        f"An idle worker uses {100 * found['idle_cpu_s_per_worker_and_s']:.2g} % of a core.",
    ]
    if found["ranks"] > found["cores"]:
        cores = counted(found["cores"], "core")
        lines.append(
            f"The {ranks} share {cores}, which are oversubscribed: while all workers are busy, rank 0 "
            "has to wait for a core."
        )
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
        print(heading(found, about()), "", table(found), "", *explain(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
