"""Measurements of any executor with the interface of `concurrent.futures`.

Each measurement checks the results of the tasks that it times.
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

from taskfarm.bench.tasks import WorkerInfo, burn, same, spin, spin_time, touch, worker_info

START, LONGEST, SHORTEST = 1e-3, 0.256, 1e-7
"""Durations of a task in the search of `metg`, in seconds: the first one, and the bounds."""

DESCENT, HALVINGS, EFFICIENT = 4.0, 4, 0.5
"""Factor by which `metg` shortens tasks, its number of bisections, and the efficiency to reach."""

SAMPLE = 4096
"""Tasks between two readings of the memory in use."""

INFO_SECONDS = 0.003
"""Seconds of a task that identifies its worker: long enough that the other workers get one, too."""

CENSUS_ROUNDS = 100
"""Rounds of such tasks, at most."""


class Executor(Protocol):
    """The interface of the executors: that of `concurrent.futures.Executor`."""

    @property
    def submit(self) -> Callable[..., Any]: ...

    @property
    def map(self) -> Callable[..., Iterable[Any]]: ...


def check(correct: bool, what: str) -> None:
    """Raise RuntimeError unless the results are correct, under ``python -O``, too."""
    if not correct:
        raise RuntimeError(f"wrong results: {what}")


def submits(executor: Executor, count: int) -> float:
    """Measure the tasks/s of `count` submits, whose results are then awaited in order."""
    started = time.perf_counter()
    futures = [executor.submit(same, i) for i in range(count)]
    correct = all(future.result() == i for i, future in enumerate(futures))
    seconds = time.perf_counter() - started
    check(correct, "submit")
    return count / seconds


def mapped(executor: Executor, count: int, **options: Any) -> float:
    """Measure the tasks/s of an ordered map of `count` empty tasks, drawn from a generator.

    `options` go to ``executor.map``.
    """
    started = time.perf_counter()
    # The comparison and the sum run in C, so that they add little to the time of the executor.
    correct = sum(
        map(operator.eq, executor.map(same, (i for i in range(count)), **options), itertools.count())
    )
    seconds = time.perf_counter() - started
    check(correct == count, f"map returned {correct} of {count} in order")
    return count / seconds


def fitting(rate: float, seconds: float, most: int, least: int = 1) -> int:
    """Return how many tasks last about `seconds`, at the rate in tasks/s of a short trial."""
    return max(least, min(most, round(rate * seconds)))


def round_trips(
    executor: Executor, count: int, pause: float = 0.0, function: Callable[[Any], Any] = same
) -> list[float]:
    """Measure the seconds from a submit to its result, each after `pause` seconds; returns them sorted.

    `function` returns its argument.
    """
    times = []
    for i in range(count):
        if pause:
            time.sleep(pause)
        started = time.perf_counter()
        result = executor.submit(function, i).result()
        times.append(time.perf_counter() - started)
        check(result == i, "submit")
    return sorted(times)


def quantile(ordered: list[float], share: float) -> float:
    """Return the value below which this share of the sorted values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def arrays(executor: Executor, nbytes: int, count: int, one_by_one: bool, warm_up: int = 4) -> float:
    """Measure the MB/s of float64 arrays that tasks change in one element and return, both ways counted.

    Parameters
    ----------
    executor
        The executor to measure.
    nbytes : int
        Bytes of one array, a multiple of 8.
    count : int
        Number of arrays.
    one_by_one : bool
        Whether each array is submitted and awaited before the next; otherwise one map sends them all.
    warm_up : int
        Number of arrays that are sent before, and are not timed.
    """
    sources = [numpy.full(nbytes // 8, float(i)) for i in range(4)]

    def arguments(count: int) -> Iterator[Any]:
        # A new view each time: pickle would send an array that occurs twice in a chunk only once.
        return (sources[i % 4][:] for i in range(count))

    def is_correct(i: int, result: Any) -> bool:
        return bool(result[0] == i % 4 + 1 and result[-1] == i % 4 and result.nbytes == nbytes)

    def results(count: int) -> Iterable[Any]:
        if one_by_one:
            return (executor.submit(touch, array).result() for array in arguments(count))
        return executor.map(touch, arguments(count))

    list(results(warm_up))
    started = time.perf_counter()
    correct = sum(is_correct(i, result) for i, result in enumerate(results(count)))
    seconds = time.perf_counter() - started
    check(correct == count, f"{count - correct} of {count} arrays")
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
    """Measure a map of tasks of very different durations; returns its time over that of a perfect schedule.

    Parameters
    ----------
    executor
        The executor to measure.
    workers : int
        Tasks that can run at a time.
    count : int
        Number of tasks.
    mean, sigma : float
        Parameters of the lognormal distribution of the CPU time of a task: its mean in seconds, and the
        standard deviation of its logarithm. The seed is fixed.
    **options
        Options of ``executor.map``.
    """
    draw = random.Random(7)
    durations = [draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma) for _ in range(count)]
    started = time.perf_counter()
    results = list(executor.map(burn, iter(durations), **options))
    seconds = time.perf_counter() - started
    check(results == durations, "map of irregular tasks")
    return seconds / max(sum(durations) / workers, max(durations))


def efficiency(
    executor: Executor, workers: int, duration: float, iteration: float, seconds: float, **options: Any
) -> float:
    """Measure the share of the workers' time that is spent in tasks.

    Parameters
    ----------
    executor
        The executor to measure.
    workers : int
        Tasks that can run at a time.
    duration : float
        Seconds of a task.
    iteration : float
        Seconds of one iteration of `spin`.
    seconds : float
        Work for each worker, in seconds.
    **options
        Options of ``executor.map``.
    """
    iterations = max(1, round(duration / iteration))
    least = 8 * workers * (options.get("chunksize") or 1)
    count = max(least, round(workers * seconds / duration))
    started = time.perf_counter()
    total: int = sum(executor.map(spin, (iterations for _ in range(count)), **options))
    wall = time.perf_counter() - started
    check(total == iterations * count, "map of short tasks")
    return total * iteration / (workers * wall)


def metg(executor: Executor, workers: int, seconds: float = 0.1, **options: Any) -> float:
    """Measure the minimum effective task granularity: the shortest tasks at 50 % efficiency.

    The measure of Task Bench (Slaughter et al., SC20): the duration at which tasks * duration /
    (workers * wall time) of a map is 50 %, found by bisection on a log scale.

    Parameters
    ----------
    executor
        The executor to measure.
    workers : int
        Tasks that can run at a time: the number of workers, or of their cores if that is smaller.
    seconds : float
        Work for each worker in one trial, at least.
    **options
        Options of ``executor.map``.

    Returns
    -------
    float
        Seconds. 0.1 us, the shortest duration tried, means that the true value may be below it. Infinity
        means that not even tasks of 256 ms reach 50 %: other processes keep the cores busy.
    """
    samples = sorted(executor.map(spin_time, [300_000] * (4 * workers), chunksize=1))
    iteration = samples[len(samples) // 2]

    def efficient(duration: float) -> bool:
        # Noise only lowers the efficiency of a trial, so the better of two counts.
        trials = (efficiency(executor, workers, duration, iteration, seconds, **options) for _ in range(2))
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
    """Return the bytes of memory that this process uses; without /proc, the most that it has used."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # In bytes on macOS, in KiB elsewhere.
        return most if sys.platform == "darwin" else most * 1024


def memory_growth(executor: Executor, count: int, **options: Any) -> float:
    """Measure the MB by which this process grows, at most, during a map of `count` empty tasks.

    The tasks are drawn from a generator, so an executor that draws all of them at once needs more memory.
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


def worker_infos(
    executor: Executor, workers: int, latest: bool = True
) -> dict[tuple[str, int], WorkerInfo]:
    """Return the latest or the first information of every worker, by host and process id."""
    found: dict[tuple[str, int], WorkerInfo] = {}
    for _ in range(CENSUS_ROUNDS):
        for info in executor.map(worker_info, [INFO_SECONDS] * (2 * workers), chunksize=1):
            key = info.host, info.pid
            if latest or key not in found:
                found[key] = info
        if len(found) >= workers:
            break
    return found


def idle(executor: Executor, workers: int, seconds: float) -> float:
    """Measure the CPU seconds that an idle worker uses per second, as the mean over the workers.

    Parameters
    ----------
    executor
        The executor to measure.
    workers : int
        Number of workers.
    seconds : float
        Seconds for which they are idle.
    """
    before = worker_infos(executor, workers)
    time.sleep(seconds)
    after = worker_infos(executor, workers, latest=False)
    shares = [
        (info.cpu - before[key].cpu) / (info.clock - before[key].clock)
        for key, info in after.items()
        if key in before
    ]
    check(bool(shares), "no worker answered twice")
    return sum(shares) / len(shares)
