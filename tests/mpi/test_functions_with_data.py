"""Functions that carry data are dropped when they are not needed any more, on rank 0 and on workers."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

CLOSURES = """
import resource
import numpy as np
from taskfarm import Farm

table = np.zeros(0)

def peak(_):
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def total():
    return float(table.sum())

if __name__ == "__main__":
    with Farm() as farm:
        before = peak(0), max(farm.map(peak, range(4)))
        for n in range(150):
            block = np.full(250_000, n, float)
            assert farm.submit(lambda block=block: float(block.sum())).result() == 250_000 * n
            table = np.full(250_000, n, float)
            assert farm.submit(total).result() == 250_000 * n
        after = peak(0), max(farm.map(peak, range(4)))
    print(after[0] - before[0] < 150, after[1] - before[1] < 150, (before, after))
"""


def test_memory_stays_bounded(run: Run) -> None:
    code, out, err = run(CLOSURES, 3, options=["--quiet"])
    assert code == 0, err
    assert out.startswith("True True"), out
    assert err.count("MB, which travel to every worker") == 2
