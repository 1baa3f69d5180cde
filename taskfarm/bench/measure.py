"""What an executor can do, in numbers. Works on any executor in the manner of `concurrent.futures`.

Each checks the results of the tasks that it times.
"""

import gc
import itertools
import math
import operator
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy

from taskfarm.bench.tasks import Seen, burn, same, spin, spin_time, touch, who

START, LONGEST, SHORTEST = 1e-3, 0.256, 1e-7
"""Seconds that a task lasts in the search of `metg`: where it begins, and its bounds."""

DESCENT, HALVINGS, EFFICIENT = 4.0, 4, 0.5
"""Factor by which `metg` shortens tasks, how often it then halves in log, and the efficiency it wants."""

SAMPLE = 4096
"""Tasks between two looks at the memory."""

BLINK = 0.003
"""Seconds that a task takes which asks a worker who it is: long enough for the others to get theirs."""

CALLS = 100
"""Rounds of such tasks, at most."""


class Executor(Protocol):
    """What is measured; `concurrent.futures.Executor` and everything like it."""

    @property
    def submit(self) -> Callable[..., Any]: ...

    @property
    def map(self) -> Callable[..., Iterable[Any]]: ...


def check(holds: bool, what: str) -> None:
    """Raise RuntimeError unless results are what they should be; stays under ``python -O``."""
    if not holds:
        raise RuntimeError(f"wrong results: {what}")


def submits(executor: Executor, count: int) -> float:
    """Tasks a second for `count` submits, one by one, whose results are then awaited in order."""
    started = time.perf_counter()
    futures = [executor.submit(same, i) for i in range(count)]
    right = all(future.result() == i for i, future in enumerate(futures))
    seconds = time.perf_counter() - started
    check(right, "submit")
    return count / seconds


def mapped(executor: Executor, count: int, **options: Any) -> float:
    """Tasks a second for an ordered map of `count` tasks that do nothing, drawn from a generator.

    `options` go to ``executor.map``.
    """
    started = time.perf_counter()
    # Both the comparison and the sum run in C, so that what is timed is the executor.
    good = sum(
        map(operator.eq, executor.map(same, (i for i in range(count)), **options), itertools.count())
    )
    seconds = time.perf_counter() - started
    check(good == count, f"map gave {good} of {count} in order")
    return count / seconds


def fitting(rate: float, seconds: float, most: int, least: int = 1) -> int:
    """How many tasks last about `seconds`, at a rate of tasks a second that a short trial gave."""
    return max(least, min(most, round(rate * seconds)))


def round_trips(executor: Executor, count: int, pause: float = 0.0) -> list[float]:
    """Seconds from a submit to its result, sorted, each after `pause` seconds of sleep."""
    times = []
    for i in range(count):
        if pause:
            time.sleep(pause)
        started = time.perf_counter()
        result = executor.submit(same, i).result()
        times.append(time.perf_counter() - started)
        check(result == i, "submit")
    return sorted(times)


def quantile(ordered: list[float], share: float) -> float:
    """The value below which that share of sorted values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def arrays(executor: Executor, nbytes: int, count: int, one_by_one: bool, warm_up: int = 4) -> float:
    """MB/s of float64 arrays that tasks change in one element and return; both directions count.

    Parameters
    ----------
    executor
        What is measured.
    nbytes : int
        Bytes of one array, a multiple of 8.
    count : int
        Arrays.
    one_by_one : bool
        Whether each is submitted and awaited before the next; else all go through one map.
    warm_up : int
        Arrays that go first and do not count.
    """
    sources = [numpy.full(nbytes // 8, float(i)) for i in range(4)]

    def given(count: int) -> Iterator[Any]:
        # A view each: of one array twice in a chunk, pickle would make one array.
        return (sources[i % 4][:] for i in range(count))

    def right(i: int, result: Any) -> bool:
        return bool(result[0] == i % 4 + 1 and result[-1] == i % 4 and result.nbytes == nbytes)

    def results(count: int) -> Iterable[Any]:
        if one_by_one:
            return (executor.submit(touch, array).result() for array in given(count))
        return executor.map(touch, given(count))

    list(results(warm_up))
    started = time.perf_counter()
    good = sum(right(i, result) for i, result in enumerate(results(count)))
    seconds = time.perf_counter() - started
    check(good == count, f"{count - good} of {count} arrays")
    check(all((source == i).all() for i, source in enumerate(sources)), "a task changed its caller's array")
    return 2 * nbytes * count / seconds / 1e6


def irregular(
    executor: Executor,
    workers: int,
    count: int = 2_000,
    mean: float = 1e-3,
    sigma: float = 1.5,
    **options: Any,
) -> float:
    """Time of a map of tasks of very different lengths, over the time that a perfect one would take.

    Parameters
    ----------
    executor
        What is measured.
    workers : int
        Tasks that can run at a time.
    count : int
        Tasks.
    mean, sigma : float
        Of the lognormal distribution of the CPU time of a task: the mean in seconds, and the standard
        deviation of the logarithm. The seed is fixed.
    **options
        Of ``executor.map``.
    """
    draw = random.Random(7)
    lengths = [draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma) for _ in range(count)]
    started = time.perf_counter()
    results = list(executor.map(burn, iter(lengths), **options))
    seconds = time.perf_counter() - started
    check(results == lengths, "map of irregular tasks")
    return seconds / max(sum(lengths) / workers, max(lengths))


def efficiency(
    executor: Executor, workers: int, duration: float, turn: float, seconds: float, **options: Any
) -> float:
    """Share of the workers' time that goes into tasks of `duration` seconds; `turn` is one of `spin`."""
    turns = max(1, round(duration / turn))
    least = 8 * workers * (options.get("chunksize") or 1)
    count = max(least, round(workers * seconds / duration))
    started = time.perf_counter()
    total: int = sum(executor.map(spin, (turns for _ in range(count)), **options))
    wall = time.perf_counter() - started
    check(total == turns * count, "map of short tasks")
    return total * turn / (workers * wall)


def metg(executor: Executor, workers: int, seconds: float = 0.1, **options: Any) -> float:
    """Minimum effective task granularity: how short tasks may be that still use half of the workers.

    The measure of Task Bench (Slaughter et al., SC20): the duration at which tasks * duration /
    (workers * wall time) of a map is 50 %, found by bisection on a log scale.

    Parameters
    ----------
    executor
        What is measured.
    workers : int
        Tasks that can run at a time: workers, or their cores if those are fewer.
    seconds : float
        Work for each worker in one trial, at least.
    **options
        Of ``executor.map``.

    Returns
    -------
    float
        Seconds. The shortest tried, 0.1 us, if all are above 50 %: the true one is then below. Infinity
        if even the longest, 256 ms, is not: the cores are busy with something else.
    """
    samples = sorted(executor.map(spin_time, [300_000] * (4 * workers), chunksize=1))
    turn = samples[len(samples) // 2]

    def efficient(duration: float) -> bool:
        # Noise only ever makes a trial less efficient, hence a second one.
        trials = (efficiency(executor, workers, duration, turn, seconds, **options) for _ in range(2))
        return any(trial >= EFFICIENT for trial in trials)

    high = START
    while not efficient(high):
        high *= DESCENT
        if high > LONGEST:
            return math.inf
    low = max(high / DESCENT, SHORTEST)
    while efficient(low):
        high, low = low, max(low / DESCENT, SHORTEST)
        if high == low:
            return high
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if efficient(middle) else (middle, high)
    return high


def resident() -> int:
    """Bytes of memory that this process has in use; the most it ever had, where there is no /proc."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def memory_growth(executor: Executor, count: int, **options: Any) -> float:
    """MB by which this process grows, at most, over a map of `count` tasks that do nothing.

    They are drawn from a generator; an executor that draws all of them at once shows it.
    """
    mapped(executor, 1_000, **options)
    gc.collect()
    before = most = resident()

    def watched(values: Iterable[int]) -> Iterator[int]:
        nonlocal most
        for value in values:
            if value % SAMPLE == 0:
                most = max(most, resident())
            yield value

    total = sum(watched(executor.map(same, watched(range(count)), **options)))
    check(total == count * (count - 1) // 2, "map from a generator")
    return (max(most, resident()) - before) / 1e6


def census(executor: Executor, workers: int, latest: bool = True) -> dict[tuple[str, int], Seen]:
    """Ask every worker who it is: what each said last, or first."""
    seen: dict[tuple[str, int], Seen] = {}
    for _ in range(CALLS):
        for answer in executor.map(who, [BLINK] * (2 * workers), chunksize=1):
            key = answer.host, answer.pid
            if latest or key not in seen:
                seen[key] = answer
        if len(seen) >= workers:
            break
    return seen


def idle(executor: Executor, workers: int, seconds: float) -> float:
    """CPU seconds that a worker burns in each second of waiting, the mean over the workers.

    Parameters
    ----------
    executor
        What is measured.
    workers : int
        How many there are.
    seconds : float
        How long they wait.
    """
    before = census(executor, workers)
    time.sleep(seconds)
    after = census(executor, workers, latest=False)
    shares = [
        (seen.cpu - before[key].cpu) / (seen.clock - before[key].clock)
        for key, seen in after.items()
        if key in before
    ]
    check(bool(shares), "no worker answered twice")
    return sum(shares) / len(shares)
