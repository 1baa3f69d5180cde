"""Shared data, arrays and reductions beside raw MPI, joblib and a sum on rank 0, in one run.

    mpiexec -n 3 python -m mpi4py tests/benchmarks/data.py [MB]

Every rank runs this file. What raw MPI does, all of them do; the farm's part is in blocks that the others
serve. Each figure is the best of nine: three rounds call everything three times.
"""

import operator
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np
from mpi4py import MPI

import taskfarm
from taskfarm import Farm
from taskfarm.job.arrays import Blocks

COMM = MPI.COMM_WORLD
ROUNDS, CALLS = 3, 3


def look(_: int, table: Any) -> int:
    """Use all pages of a table; it lasts long enough that every worker gets a task."""
    found = int(table[::512].sum())
    time.sleep(0.02)
    return found


def same(block: Any) -> Any:
    return block


def one(_: object) -> float:
    return 1.0


def histogram(n: int) -> Any:
    return np.full(131_072, float(n))


def shared(farm: Farm, data: Any) -> None:
    """Every worker uses the same data, which is shared."""
    with taskfarm.share(data) as table:
        list(farm.map(look, range(farm.num_workers), repeat(table), chunksize=1))


def memmaps(data: Any, workers: int) -> None:
    """joblib writes the data to a file once, which its processes map."""
    try:
        import joblib
    except ImportError:
        return
    with joblib.Parallel(n_jobs=workers) as pool:
        pool(joblib.delayed(abs)(n) for n in range(2 * workers))
        started = time.perf_counter()
        # A second call would find the file of the first.
        pool(joblib.delayed(look)(n, data) for n in range(workers))
        report("joblib", "share", time.perf_counter() - started)


def broadcast(data: Any) -> None:
    """Every rank gets a copy of the data by MPI_Bcast, and uses it."""
    table = data if COMM.rank == 0 else np.empty_like(data)
    COMM.Bcast(table)
    if COMM.rank:
        look(0, table)
    COMM.Barrier()


def loop(image: Any, out: Any, rows: int) -> None:
    """Rank 0 sends each rank block after block, and receives them into their place."""
    if COMM.rank:
        serve(image.shape[1], rows)
        return
    status, starts = MPI.Status(), iter(range(0, len(image), rows))
    busy: dict[int, int] = {}
    for rank in range(1, COMM.size):
        send_next(image, starts, rows, rank, busy)
    while busy:
        COMM.Probe(MPI.ANY_SOURCE, 1, status)
        rank = status.Get_source()
        start = busy.pop(rank)
        COMM.Recv(out[start : start + rows], rank, 1)
        send_next(image, starts, rows, rank, busy)
    for rank in range(1, COMM.size):
        COMM.Send(np.empty(0), rank, 1)


def send_next(image: Any, starts: Any, rows: int, rank: int, busy: dict[int, int]) -> None:
    start = next(starts, None)
    if start is not None:
        COMM.Send(image[start : start + rows], rank, 1)
        busy[rank] = start


def serve(columns: int, rows: int) -> None:
    status = MPI.Status()
    while True:
        COMM.Probe(0, 1, status)
        block = np.empty(status.Get_count(MPI.DOUBLE))
        COMM.Recv(block, 0, 1)
        if not len(block):
            return
        COMM.Send(block, 0, 1)


def scatter(image: Any, out: Any) -> None:
    """One piece of the array for each rank, there and back."""
    length, columns = image.shape
    counts = [length * (rank + 1) // COMM.size - length * rank // COMM.size for rank in range(COMM.size)]
    part = np.empty((counts[COMM.rank], columns))
    sizes = [count * columns for count in counts]
    is_root = COMM.rank == 0
    COMM.Scatterv([image, sizes] if is_root else None, part)
    COMM.Gatherv(part, [out, sizes] if is_root else None)


FIGURES: dict[tuple[str, str], float] = {}


def report(who: str, row: str, seconds: float) -> None:
    """Keep the best time of each."""
    FIGURES[who, row] = min(seconds, FIGURES.get((who, row), seconds))


def timed(who: str, row: str, call: Callable[..., object], *arguments: Any) -> None:
    """Time a call several times, on rank 0 of all that call it."""
    for _ in range(CALLS):
        started = time.perf_counter()
        call(*arguments)
        report(who, row, time.perf_counter() - started)


def by_farm(farm: Farm, data: Any, image: Any, out: Any) -> None:
    """What the farm does; its workers have started."""
    list(farm.map(one, range(10_000)))
    timed("taskfarm", "share", shared, farm, data)
    timed("taskfarm", "array", lambda: farm.map_array(same, image, out=out))
    timed("taskfarm", "floats", lambda: farm.reduce(one, operator.add, repeat(None, 10**6)))
    timed("sum(map)", "floats", lambda: sum(farm.map(one, repeat(None, 10**6))))
    timed("taskfarm", "histograms", lambda: farm.reduce(histogram, np.add, range(200)))
    timed("sum(map)", "histograms", lambda: sum(farm.map(histogram, range(200))))


ROWS = {
    "share": "{0} MB to every worker of a host, used once",
    "array": "an array of {0} MB there and back",
    "floats": "a sum of 1,000,000 floats",
    "histograms": "a sum of 200 arrays of 1 MB",
}


def print_table(megabytes: int) -> None:
    for row, text in ROWS.items():
        own = FIGURES["taskfarm", row]
        others = [
            f"{who} {seconds:.3f} s (x {seconds / own:.2f})"
            for (who, of), seconds in FIGURES.items()
            if of == row and who != "taskfarm"
        ]
        print(f"{text.format(megabytes)}: taskfarm {own:.3f} s, {', '.join(others)}")


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    data = np.ones(megabytes * 1_000_000, np.uint8)
    columns = 1024
    image = np.ones((megabytes * 1_000_000 // (8 * columns), columns))
    out = np.zeros_like(image)
    # The same blocks as the farm's.
    rows = Blocks([image], 0, None, out).rows
    for _ in range(ROUNDS):
        with Farm.from_comm(COMM) as farm:
            if farm is not None:
                by_farm(farm, data, image, out)
                assert (out == image).all()
                memmaps(data, COMM.size - 1)
        timed("MPI_Bcast", "share", broadcast, data)
        timed("Send/Recv", "array", loop, image, out, rows)
        timed("Scatterv/Gatherv", "array", scatter, image, out)
    if COMM.rank == 0:
        print_table(megabytes)


if __name__ == "__main__":
    main()
