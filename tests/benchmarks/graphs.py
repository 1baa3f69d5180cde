"""Graphs of dependent tasks: python -m taskfarm run -n 3 -m tests.benchmarks.graphs [PYTHON]

A chain of no-ops, a binary tree of sums, and 8 MB through a chain of arrays. PYTHON is an interpreter that
has Dask and Parsl: they run the same graphs afterwards, one after the other, with as many workers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

CHAIN, LEVELS, ARRAYS, MB8 = 10_000, 14, 100, 1_000_000

PEERS = ("dask", "parsl")


def same(value: Any) -> Any:
    """Return what it is given."""
    return value


def add(one: int, other: int) -> int:
    """Add two numbers."""
    return one + other


def ones(count: int) -> Any:
    """Make an array."""
    import numpy

    return numpy.ones(count)


def grown(array: Any) -> Any:
    """Add 1 to an array."""
    return array + 1


def first(array: Any) -> float:
    """The first element of an array."""
    return float(array[0])


Submit = Callable[..., Any]


def chain(submit: Submit, result: Callable[[Any], Any]) -> float:
    """Seconds for a chain of no-ops."""
    began = time.perf_counter()
    future = submit(same, 7)
    for _ in range(CHAIN - 1):
        future = submit(same, future)
    assert result(future) == 7
    return time.perf_counter() - began


def tree(submit: Submit, result: Callable[[Any], Any]) -> float:
    """Seconds for a binary tree of sums: 2**14 of them."""
    began = time.perf_counter()
    level: list[Any] = [submit(add, leaf, leaf) for leaf in range(2 ** (LEVELS - 1))]
    while len(level) > 1:
        level = [submit(add, *pair) for pair in zip(level[::2], level[1::2], strict=True)]
    assert result(level[0]) == 2 ** (LEVELS - 1) * (2 ** (LEVELS - 1) - 1)
    return time.perf_counter() - began


def arrays(submit: Submit, result: Callable[[Any], Any]) -> float:
    """Seconds for 8 MB through a chain."""
    began = time.perf_counter()
    future = submit(ones, MB8)
    for _ in range(ARRAYS):
        future = submit(grown, future)
    assert result(submit(first, future)) == ARRAYS + 1
    return time.perf_counter() - began


def measure(
    submit: Submit, result: Callable[[Any], Any], keeping: Submit | None = None
) -> dict[str, float]:
    """The figures of one system; every graph once before, which does not count."""
    global CHAIN, LEVELS
    sizes, (CHAIN, LEVELS) = (CHAIN, LEVELS), (200, 6)
    for graph in (chain, tree, arrays):
        graph(submit, result)
    CHAIN, LEVELS = sizes
    found = {
        f"chain of {CHAIN:,} no-ops, tasks/s": CHAIN / chain(submit, result),
        f"tree of {2**LEVELS:,} sums, tasks/s": (2**LEVELS - 1) / tree(submit, result),
    }
    if keeping is not None:
        found[f"8 MB through a chain of {ARRAYS}, keep=True, s"] = arrays(keeping, result)
    found[f"8 MB through a chain of {ARRAYS}, s"] = arrays(submit, result)
    return found


def of_taskfarm() -> None:
    """Measure this project, and then its peers if there is an interpreter that has them."""
    from taskfarm import Farm, task

    with Farm() as farm:
        workers = farm.num_workers

        tasks: dict[Any, Any] = {function: task(keep=True)(function) for function in (ones, grown, first)}

        def keeping(function: Callable[..., Any], *arguments: Any) -> Any:
            return farm.submit(tasks[function], *arguments)

        show("taskfarm", measure(farm.submit, lambda future: future.result(), keeping))
    for python in sys.argv[1:]:
        for peer in PEERS:
            words = [python, __file__, peer, str(workers)]
            # Parsl looks for its programs there.
            path = f"{os.path.dirname(python)}:{os.environ['PATH']}"
            environ = {**os.environ, "PATH": path}
            run = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
            if run.returncode:
                print(f"{peer}: {run.stderr.strip().splitlines()[-1:]}", flush=True)
            else:
                show(peer, json.loads(run.stdout.splitlines()[-1]))


def show(name: str, found: dict[str, float]) -> None:
    """Print the figures of one system."""
    for row, figure in found.items():
        print(f"{name:10} {row:50} {figure:12,.1f}", flush=True)


def of_dask(workers: int) -> dict[str, float]:
    """Measure Dask's local cluster."""
    from dask.distributed import Client

    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:
        return measure(
            lambda function, *arguments: client.submit(function, *arguments, pure=False),
            lambda future: future.result(),
        )


def of_parsl(workers: int) -> dict[str, float]:
    """Measure Parsl's executor for many tasks."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    provider = LocalProvider(init_blocks=1, max_blocks=1)
    executor = HighThroughputExecutor(max_workers_per_node=workers, address="127.0.0.1", provider=provider)
    with (
        tempfile.TemporaryDirectory() as folder,
        parsl.load(Config([executor], usage_tracking=0, run_dir=folder)),
    ):
        apps = {function: parsl.python_app(function) for function in (same, add, ones, grown, first)}
        return measure(
            lambda function, *arguments: apps[function](*arguments), lambda future: future.result()
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PEERS:
        measured = {"dask": of_dask, "parsl": of_parsl}[sys.argv[1]](int(sys.argv[2]))
        print(json.dumps(measured))
    else:
        of_taskfarm()
