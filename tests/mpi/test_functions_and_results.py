"""Functions that carry data are dropped; a journal keeps results of classes of the job."""

from collections.abc import Callable
from pathlib import Path

from tests.mpi.conftest import Job

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


EXPORTED = """
import dataclasses
from taskfarm import task

@dataclasses.dataclass
class Point:
    x: int

@task
def make(x):
    return Point(x)

if __name__ == "__main__":
    print([type(point) is Point for point in make.map(range(3))])
"""


def test_a_journal_with_results_of_the_jobs_classes(run: Run, python: Path, tmp_path: Path) -> None:
    for options in (["--journal", "run.db"], ["--journal", "run.db", "--resume"]):
        code, out, err = run(EXPORTED, 2, options=["--quiet", *options])
        assert (code, out) == (0, "[True, True, True]\n"), err
    words = ["-m", "taskfarm", "journal", "run.db", "--export", "run.jsonl"]
    assert Job(python, words, tmp_path).end()[0] == 0
    assert '"result": {"repr": "Point(x=1)"}' in (tmp_path / "run.jsonl").read_text()
