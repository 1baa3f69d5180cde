"""A program prints the same in one process, where nothing travels, and on ranks."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mpi.conftest import PYTHONS, Job

CORPUS = Path(__file__).parent / "corpus"
PROGRAMS = sorted(path.name for path in CORPUS.glob("*.py"))


@functools.cache
def expected(name: str) -> str:
    """What a program of the corpus prints in one process."""
    words = [sys.executable, str(CORPUS / name)]
    done = subprocess.run(words, cwd=CORPUS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_of_the_corpus(python: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("joblib") and python != PYTHONS["mpich"]:
        pytest.skip("joblib is installed beside one of the MPIs")
    words = ["-m", "taskfarm", "run", "-n", "3", "--quiet", str(CORPUS / name)]
    code, out, err = Job(python, words, tmp_path).end(120)
    assert code == 0, err
    assert out.splitlines() == expected(name).splitlines()


JOB = """
import beside
from taskfarm import task

class Point:
    def __init__(self, x):
        self.x = x

@task
def move(point):
    return Point(beside.g(point.x))

if __name__ == "__main__":
    print([(type(point) is Point, point.x) for point in move.map(map(Point, range(3)))])
"""


def one_process(words: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_links_and_code(python: Path, tmp_path: Path) -> None:
    real, linked, package = tmp_path / "real", tmp_path / "run", tmp_path / "package"
    for folder in (real, linked, package):
        folder.mkdir()
    (real / "beside.py").write_text("def g(x): return x + 1\n")
    (real / "job.py").write_text(JOB)
    (linked / "job.py").symlink_to("../real/job.py")
    shutil.copy(real / "beside.py", package / "beside.py")
    (package / "__init__.py").write_text("")
    (package / "job.py").write_text(JOB.replace("import beside", "from . import beside"))
    code = JOB.replace("import beside", "from real import beside")
    for words in (["run/job.py"], ["-m", "package.job"], ["-c", code]):
        out = one_process(words, tmp_path)
        assert out == "[(True, 1), (True, 2), (True, 3)]\n"
        run = ["-m", "taskfarm", "run", "-n", "2", "--quiet", *words]
        assert Job(python, run, tmp_path).end() == (0, out, "")
