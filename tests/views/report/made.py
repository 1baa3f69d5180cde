"""Makes runs for reports."""

import math
import random
from dataclasses import dataclass
from heapq import heapify, heapreplace
from time import perf_counter
from typing import Any

from taskfarm.master.farm_time import FarmTime
from taskfarm.views.report.timeline import Timeline
from taskfarm.views.summary import Summary
from tests.views.recorded import ran, registered, span

TRACE = """Traceback (most recent call last):
  File "job.py", line 41, in fit
    solution = solve(matrix, data)
  File "job.py", line 17, in solve
    raise np.linalg.LinAlgError("the matrix is singular")
numpy.linalg.LinAlgError: the matrix is singular
"""

ABOUT: dict[str, Any] = {
    "command": "mpiexec -np 33 python -m taskfarm run --report run.html job.py --nights 24",
    "folder": "/home/ada/survey",
    "commit": "3f2c9ab (with changes)",
    "MPI": "MPICH 4.3.2, 33 ranks on 4 hosts",
    "Python": "3.11.2, numpy 2.2.6, mpi4py 4.1.0, cloudpickle 3.1.3",
    "taskfarm": "0.5.0",
    "hosts": ["node01", "node02", "node03", "node04"],
}


@dataclass
class FailureCause:
    """Failures that look the same."""

    name: str = "fit"
    summary: str = "LinAlgError: the matrix is singular"
    place: str = "job.py:17"
    count: int = 3
    retried: int = 2
    first: int = 61
    worker: int = 7
    trace: str = TRACE


@dataclass
class Made:
    """A run, when it ended, and how many seconds the timeline took for it."""

    timeline: Timeline
    summary: Summary
    now: float
    seconds: float


def run(
    workers: int, parts: int, *, together: int = 1, seconds: float = 1.0, hosts: int = 1, seed: int = 1,
    names: tuple[str, ...] = ("calibrate", "fit", "render"), fails: float = 0.0, lost: int | None = None,
) -> Made:  # fmt: skip
    """A run of a number of parts, each of `together` tasks that take `seconds` together, about."""
    rng = random.Random(seed)
    clock = [50.0]
    farm_time = FarmTime(lambda: clock[0])
    timeline, summary = Timeline(workers, 50.0), Summary(50.0, workers, farm_time)
    for worker in range(1, workers + 1):
        timeline.worker_joined(50.0, worker, f"node{(worker - 1) * hosts // workers + 1:02d}")
    functions = [registered(name) for name in names]
    free = [(50.2 + 0.3 * seconds * rng.random(), worker) for worker in range(1, workers + 1)]
    heapify(free)
    tasks = parts * together
    middle, first, end, spent = math.log(seconds) - 0.1, 0, 50.0, 0.0
    for number in range(parts):
        begin, worker = free[0]
        # Phases follow each other, as in most jobs, and the last one straggles.
        phase = number * len(functions) / parts
        which = min(len(functions) - 1, int(phase + 0.25 * rng.random()))
        took = rng.lognormvariate(middle, 0.3 + 0.2 * (which % 3)) * (0.6 + 0.4 * (which % 3))
        if number == parts - workers // 2:
            took *= 5
        wrong: dict[int, BaseException] = {0: ValueError()} if rng.random() < fails else {}
        again = [0] if wrong and rng.random() < 0.5 else []
        summary.batch_sent(begin, worker, [span(first, together)], workers)
        told = ran(
            begin + took, functions[which].name, together, seconds=took, first=first, worker=worker,
            failures=wrong, again=again, attempt=1 + (rng.random() < fails), nbytes=800 * together,
        )  # fmt: skip
        before = perf_counter()
        timeline.calls_finished(told)
        spent += perf_counter() - before
        summary.calls_finished(told)
        first += together
        end = max(end, begin + took)
        gone = worker == lost and number > parts // 2
        if gone:
            timeline.worker_lost(begin + took, worker, "host node03 no longer answers")
            lost = None
        heapreplace(free, (math.inf if gone else begin + took * 1.02 + 0.002 * seconds, worker))
    assert first == tasks
    clock[0] = end + 0.4 * seconds
    timeline.add_up()
    return Made(timeline, summary, end + 0.4 * seconds, spent)
