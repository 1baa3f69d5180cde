"""What sharing an array costs: ``python -m taskfarm run -n 17 tests/benchmarks/share.py [MB]``."""

import itertools
import os
import sys
import time
from typing import Any

import numpy as np

import taskfarm
from taskfarm import task


@task
def first_use(number: int, table: Any) -> tuple[int, int]:
    """Read all of the data; this rank, and its process."""
    int(np.add.reduce(table[::512]))
    time.sleep(0.05)
    return taskfarm.current().rank, os.getpid()


def pss(process: int) -> float:
    """Memory of a process in MB, with its part of what it shares."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def reach_all(table: Any, workers: int) -> set[int]:
    """Let every rank use some data; returns their processes."""
    processes = {os.getpid()}
    while len(processes) <= workers:
        found = first_use.map(range(4 * workers), itertools.repeat(table), chunksize=1)
        processes |= {process for _, process in found}
    return processes


def main() -> None:
    """Print what one array costs on the ranks of this host."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with taskfarm.Farm() as farm:
        workers = farm.num_workers
    processes = reach_all(taskfarm.share(np.zeros(1000)), workers)
    before = sum(map(pss, processes))
    started = time.perf_counter()
    table = taskfarm.share(np.zeros(megabytes << 20, np.uint8))
    shared = time.perf_counter()
    reach_all(table, workers)
    used = time.perf_counter()
    growth = sum(map(pss, processes)) - before
    print(
        f"{megabytes} MiB on {workers} workers: {growth / megabytes:.3f} copies; share took "
        f"{shared - started:.2f} s, the first tasks {used - shared:.2f} s"
    )
    table.free()
    reach_all(taskfarm.share(np.zeros(1000)), workers)
    print(f"after free: {(sum(map(pss, processes)) - before) / megabytes:.3f} copies")


if __name__ == "__main__":
    main()
