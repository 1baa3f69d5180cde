"""Tasks on several ranks beside tasks on one: share of busy time, and how long the large ones waited.

The work of the two kinds in one run, and in two runs one after the other::

    python -m taskfarm run -n 17 tests/benchmarks/gangs.py 10000 100 4
    python -m taskfarm run -n 5 tests/benchmarks/gangs.py 2000 50 2

The arguments are the numbers of tasks on one rank, which sleep for 10 ms, and of tasks on several ranks,
which take 40 ms, and the ranks of these.
"""

import sys
import time

import taskfarm
from taskfarm import task

SHORT, LONG = 0.01, 0.04


@task
def short(number: int) -> int:
    """Sleep."""
    time.sleep(SHORT)
    return number


@task
def long(queued: float) -> float:
    """Sleep on several ranks; returns for how long the task had waited, in seconds."""
    comm = taskfarm.comm()
    waited = time.time() - queued
    time.sleep(LONG)
    comm.barrier()
    return waited


def main() -> None:
    """Measure."""
    singles, gangs, ranks = map(int, sys.argv[1:])
    solver = long.options(ranks=ranks)
    workers = taskfarm.Farm().num_workers
    list(short.map(range(8 * workers)))
    list(solver.map([time.time()] * 4))
    work = (singles * SHORT + gangs * LONG * ranks) / workers

    began = time.perf_counter()
    futures = []
    waits = []
    for _ in range(gangs):
        futures += [short.submit(number) for number in range(singles // gangs)]
        waits.append(solver.submit(time.time()))
    waited = sorted(future.result() for future in waits)
    for future in futures:
        future.result()
    mixed = time.perf_counter() - began

    # All are queued at once, so a large task waits for those before it, too: its turn.
    turns = [(place + 1) * work / gangs for place in range(gangs)]
    late = [future.result() - turn for future, turn in zip(waits, turns, strict=True)]

    began = time.perf_counter()
    list(short.map(range(singles)))
    list(solver.map([time.time()] * gangs))
    apart = time.perf_counter() - began
    print(f"{workers} workers, {singles} x {SHORT:g} s on one rank, {gangs} x {LONG:g} s on {ranks} ranks")
    print(f"together: {mixed:.2f} s, busy {work / mixed:.0%}")
    print(f"apart: {apart:.2f} s, busy {work / apart:.0%}")
    print(
        f"large tasks started {sorted(late)[gangs // 2] * 1e3:.0f} ms after their turn in the median, "
        f"{max(late) * 1e3:.0f} ms at most; the last one had waited {waited[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
