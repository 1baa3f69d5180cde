"""The pools and executors of `taskfarm.compat`, by other projects' own tests; and what those do not ask."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import contract_pools
from .conftest import Job

Run = Callable[..., tuple[int, str, str]]

SUITES = {"multiprocessing": 25, "mpi4py": 80}
"""The suites, and how many of their tests run at least."""


def folders(suite: str) -> list[str]:
    """Where a suite is, if it is not part of Python; skips if this machine has none."""
    if suite == "multiprocessing":
        pytest.importorskip(
            "test._test_multiprocessing",
            reason="this Python ships no tests; Debian: apt-get install libpython3.X-testsuite",
        )
        return []
    folder = contract_pools.mpi4py_folder()
    if folder is None:
        pytest.skip("no source archive of mpi4py, which has its tests: scripts/setup downloads it")
    return [str(folder)]


RANKS = ["-m", "taskfarm", "run", "-n", "4", "--quiet", "--progress", "off"]


@pytest.mark.parametrize("suite", SUITES)
def test_their_tests_pass(suite: str, python: Path, tmp_path: Path) -> None:
    assert passed(RANKS, suite, python, tmp_path) >= SUITES[suite]


def test_their_tests_pass_in_one_process(tmp_path: Path) -> None:
    assert passed([], "mpi4py", Path(sys.executable), tmp_path) >= 60


def passed(launch: list[str], suite: str, python: Path, tmp_path: Path) -> int:
    """Run a suite; returns how many of its tests have passed, if none has failed."""
    words = [*launch, str(Path(contract_pools.__file__)), suite, *folders(suite)]
    code, _, err = Job(python, words, tmp_path).end(300)
    assert (tmp_path / contract_pools.RESULTS).exists(), err
    done = json.loads((tmp_path / contract_pools.RESULTS).read_text())
    assert not done["failed"], "\n".join(f"{name}\n{trace}" for name, trace in done["failed"].items())
    assert code == 0, err
    assert all(done["skipped"].values())
    return len(done["passed"])


TERMINATED = """
import time
from concurrent.futures import CancelledError
from taskfarm import Farm, task
from taskfarm.compat import MPIPoolExecutor, Pool

def spin(x):
    while True:
        x += 1

def stubborn(x):
    for _ in range(2):
        try:
            time.sleep(1000)
        except BaseException:
            pass

with Farm() as farm:
    for endless in (time.sleep, spin, task(isolate=True)(spin), stubborn):
        pool = Pool(2)
        results = [pool.map_async(endless, [1000] * 500, chunksize=1), pool.apply_async(endless, (1000,))]
        time.sleep(0.2)
        pool.terminate()
        pool.join()
        for result in results:
            try:
                result.get()
            except CancelledError:
                print("cancelled", end=" ")
        with Pool() as other, MPIPoolExecutor(1) as executor:
            one, two = other.map(abs, [-1]), executor.submit(abs, -2).result()
            print(sum(farm.map(abs, range(-50, 0))), one, two)
pool = Pool()
pool.map_async(spin, range(9))
pool.terminate()
"""


def test_terminate_breaks_off_what_runs(run: Run) -> None:
    code, out, err = run(TERMINATED, 3)
    assert code == 0, err
    assert out.splitlines() == ["cancelled cancelled 1275 [1] 2"] * 4
    assert "failed: " not in err
