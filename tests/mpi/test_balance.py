"""Work finds the ranks that are free, while others are busy."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

RECALL = """
import os
import time
from taskfarm import Farm

def step(seconds):
    time.sleep(seconds)
    return os.getpid()

with Farm() as farm:
    for options in ({"chunksize": 100}, {"chunksize": 100, "unordered": True}):
        pids = list(farm.map(step, [1.5] + [0.0] * 99, **options))
        slow = pids[-1] if options.get("unordered") else pids[0]
        print(len(pids), pids.count(slow))
    futures = [farm.submit(step, 1.5) for _ in range(farm.num_workers)]
    quick = [farm.submit(step, 0.0) for _ in range(20)]
    print(len({f.result() for f in futures}), sum(f.result() > 0 for f in quick))
"""


def test_what_a_slow_worker_has_not_started_goes_to_an_idle_one(run: Run) -> None:
    code, out, err = run(RECALL, 3)
    assert code == 0, err
    assert out == "100 1\n100 1\n2 20\n"


BUSY = """
import time
import numpy as np
from taskfarm import Farm

def holds(a, seconds):
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        pass
    return a + 1

with Farm() as farm:
    a = np.zeros(1_000_000)
    arrays = list(farm.map(holds, [a] * 8, [0.05] * 8))
    print(sum(int(b.sum()) for b in arrays))
    with_long_one = [farm.submit(holds, a, s) for s in (1.0, 0.0, 0.0, 0.0)]
    print([int(f.result()[0]) for f in with_long_one])
"""


def test_large_arrays_reach_workers_that_compute(run: Run) -> None:
    code, out, err = run(BUSY, 3)
    assert code == 0, err
    assert out == "8000000\n[1, 1, 1, 1]\n"
