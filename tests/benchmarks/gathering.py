"""How fast `reduce` and `map_array` are, and how much memory rank 0 needs beside what the job itself has.

python -m taskfarm run -n 3 tests/benchmarks/gathering.py
python -m taskfarm run -n 9 tests/benchmarks/gathering.py 8
"""

import operator
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

from taskfarm import Farm


def one(_: object) -> float:
    return 1.0


def same(block: Any) -> Any:
    return block


def histogram(n: int) -> Any:
    return np.full(131_072, float(n))


def large(n: int) -> Any:
    return np.full(12_500_000, float(n))


def peak() -> float:
    """The most memory that this process has held, in MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1.024e-3 for line in file if line.startswith("VmHWM"))


def least(call: Callable[[], object], times: int = 5) -> float:
    """The shortest of some durations of a call, in seconds."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def small_results(farm: Farm) -> None:
    """A million floats, reduced on the workers and on rank 0."""
    reduced = least(lambda: farm.reduce(one, operator.add, repeat(None, 10**6)))
    summed = least(lambda: sum(farm.map(one, repeat(None, 10**6))))
    print(f"1,000,000 floats   reduce {reduced:.2f} s, sum(map(...)) {summed:.2f} s")


def arrays(farm: Farm) -> None:
    """An array of 1 GB there and back, in blocks of a row."""
    image = np.ones((4000, 31_250))
    out = np.zeros_like(image)
    before = peak()
    seconds = least(lambda: farm.map_array(same, image, out=out), 3)
    print(
        f"1 GB there and back   {2 * image.nbytes / seconds / 1e6:.0f} MB/s, {peak() - before:.0f} MB more"
    )


def histograms(farm: Farm) -> None:
    """A thousand results of 1 MB."""
    reduced = least(lambda: farm.reduce(histogram, np.add, range(1000)), 3)
    summed = least(lambda: sum(farm.map(histogram, range(1000))), 3)
    print(f"1,000 arrays of 1 MB   reduce {reduced:.2f} s, sum(map(...)) {summed:.2f} s")


def large_results(farm: Farm, count: int) -> None:
    """Results of 100 MB."""
    before = peak()
    farm.reduce(large, np.add, range(count))
    print(f"{count} arrays of 100 MB   {(peak() - before) / 100:.1f} of them at a time on rank 0")


def main() -> None:
    with Farm() as farm:
        list(farm.map(one, range(10_000)))
        if sys.argv[1:]:
            large_results(farm, int(sys.argv[1]))
            return
        small_results(farm)
        histograms(farm)
        arrays(farm)


if __name__ == "__main__":
    main()
