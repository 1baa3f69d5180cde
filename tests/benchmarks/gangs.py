"""Tasks on several ranks beside tasks on one: share of busy time, and how long the large ones waited.

    python -m tests.benchmarks.gangs -n 17
    python -m tests.benchmarks.gangs -n 4 --singles 1500 --gangs 30 --ranks 2

The same work, in one pool and in two runs one after the other, alternately in one allocation: tasks on one
rank, which sleep for 10 ms, and tasks on several ranks, which sleep for 40 ms. The start of the ranks does
not count, so two real runs would take longer. `-n` counts rank 0, which runs no tasks.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import taskfarm
from taskfarm import task

SHORT, LONG = 0.01, 0.04
"""Seconds of a task on one rank, and of one on several."""

LIMIT = 240.0
"""Seconds after which the run counts as hanging."""


@task
def short(number: int) -> float:
    """Sleep; returns for how long."""
    began = time.perf_counter()
    time.sleep(SHORT)
    return time.perf_counter() - began


@task
def long(queued: float) -> tuple[float, float]:
    """Sleep on several ranks; returns for how long, and for how long the task had waited."""
    comm = taskfarm.comm()
    waited = time.time() - queued
    began = time.perf_counter()
    time.sleep(LONG)
    comm.barrier()
    return time.perf_counter() - began, waited


def together(solver: Any, singles: int, gangs: int, ranks: int) -> tuple[float, float, list[float]]:
    """Run all in one pool, each large task after its share of the others: wall, work, waits in seconds."""
    began = time.perf_counter()
    futures, large = [], []
    for number in range(gangs):
        futures += [
            short.submit(one) for one in range(number * singles // gangs, (number + 1) * singles // gangs)
        ]
        large.append(solver.submit(time.time()))
    ends = [future.result() for future in large]
    work = sum(future.result() for future in futures) + ranks * sum(seconds for seconds, _ in ends)
    return time.perf_counter() - began, work, [waited for _, waited in ends]


def apart(solver: Any, singles: int, gangs: int, ranks: int) -> tuple[float, float]:
    """Run one kind after the other: wall and work in seconds."""
    began = time.perf_counter()
    work = sum([future.result() for future in [short.submit(one) for one in range(singles)]])
    ends = [future.result() for future in [solver.submit(time.time()) for _ in range(gangs)]]
    return time.perf_counter() - began, work + ranks * sum(seconds for seconds, _ in ends)


def measure(singles: int, gangs: int, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure in this run; all figures are medians over the rounds but the longest wait."""
    solver = long.options(ranks=ranks)
    workers = taskfarm.Farm().num_workers
    list(short.map(range(8 * workers)))
    list(solver.map([time.time()] * 4))
    found: dict[str, list[float]] = {}

    def note(**figures: float) -> None:
        for name, figure in figures.items():
            found.setdefault(name, []).append(figure)

    for _ in range(rounds):
        wall, work, waits = together(solver, singles, gangs, ranks)
        # All are queued at once, so a large task waits for those before it, too: its turn.
        turns = [(place + 1) * wall / gangs for place in range(gangs)]
        late = sorted(waited - turn for waited, turn in zip(waits, turns, strict=True))
        note(together_seconds=wall, together_busy=work / (workers * wall))
        note(waited_p50=statistics.median(waits), waited_max=max(waits))
        note(late_p50=statistics.median(late), late_max=late[-1])
        first = wall
        wall, work = apart(solver, singles, gangs, ranks)
        note(apart_seconds=wall, apart_busy=work / (workers * wall), ratio=first / wall)
    figures: dict[str, Any] = {name: statistics.median(values) for name, values in found.items()}
    figures["late_max"], figures["waited_max"] = max(found["late_max"]), max(found["waited_max"])
    return {"workers": workers, "singles": singles, "gangs": gangs, "ranks": ranks, **figures}


def table(found: dict[str, Any]) -> str:
    """The figures in words."""
    return (
        f"{found['workers']} workers, {found['singles']} x {SHORT:g} s on one rank, "
        f"{found['gangs']} x {LONG:g} s on {found['ranks']} ranks\n"
        f"together: {found['together_seconds']:.2f} s, busy {found['together_busy']:.1%}\n"
        f"apart:    {found['apart_seconds']:.2f} s, busy {found['apart_busy']:.1%}; together takes "
        f"{found['ratio']:.3f} times as long\n"
        f"large tasks waited {found['waited_p50']:.2f} s in the median, {found['waited_max']:.2f} s at "
        f"most; after their turn {1e3 * found['late_p50']:.0f} ms, {1e3 * found['late_max']:.0f} ms at most"
    )


def main() -> int:
    """Start the run, or measure in it; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=0, help="number of ranks; without it, measure in this run")
    parser.add_argument("--singles", type=int, default=10_000)
    parser.add_argument("--gangs", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.n:
        here = str(Path(__file__).resolve())
        start = [
            sys.executable,
            "-m",
            "taskfarm",
            "run",
            "-n",
            str(given.n),
            "--quiet",
            "--progress",
            "off",
        ]
        words = [f"--{name}={getattr(given, name)}" for name in ("singles", "gangs", "ranks", "rounds")]
        words += ["--json"] if given.json else []
        return subprocess.run([*start, here, *words], timeout=LIMIT).returncode
    found = measure(given.singles, given.gangs, given.ranks, given.rounds)
    print(json.dumps(found) if given.json else table(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
