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
    done = subprocess.run(words, cwd=CORPUS, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_of_the_corpus(python: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("joblib") and python != PYTHONS["mpich"]:
        pytest.skip("joblib is installed beside one of the MPIs")
    words = ["-m", "taskfarm", "run", "-n", "3", "--quiet", str(CORPUS / name)]
    code, out, err = Job(python, words, tmp_path).end(240)
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
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=240)
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


SHADOWED = """
import queue, random, signal
from taskfarm import task
import select

@task
def names(x):
    import logging
    return [module.MINE for module in (logging, queue, random, select, signal)]

if __name__ == "__main__":
    print(*names.map(range(2)), names.options(isolate=True).submit(0).result())
"""


def test_files_named_like_the_standard_library(python: Path, tmp_path: Path) -> None:
    job, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    for folder in (job, elsewhere):
        folder.mkdir()
        for name in ("logging", "queue", "random", "select", "signal"):
            (folder / f"{name}.py").write_text(f"MINE = '{folder.name} {name}'\n")
    (job / "job.py").write_text(SHADOWED)
    out = one_process(["job.py"], job)
    assert out.count("job signal") == 3
    assert "elsewhere" not in out
    run = ["-m", "taskfarm", "run", "-n", "2", "--quiet", "../job/job.py"]
    assert Job(python, run, elsewhere).end() == (0, out, "")


PATHS = """
import os, sys
sys.path.insert(0, os.path.abspath("new"))
import model
from taskfarm import Farm, task

@task
def flags(_):
    return sys.flags.optimize, sys.warnoptions, "dev" in sys._xoptions, sys.flags.safe_path

def later(_):
    import found_later
    return found_later.__file__

if __name__ == "__main__":
    with Farm() as farm:
        print(list(farm.map(model.version, range(2))), flags.submit(0).result())
        sys.path.insert(0, os.path.abspath("more"))
        print(list(farm.map(later, range(4))))
        sys.path.remove(os.path.abspath("new"))
        print(farm.submit(lambda: os.path.abspath("new") in sys.path[:3]).result())
"""


def test_path_and_options_of_the_interpreter(python: Path, tmp_path: Path) -> None:
    # The folder of hooks is on the workers' PYTHONPATH.
    for folder in ("new", "hooks", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(f"def version(_): return {folder!r}\n")
    (tmp_path / "more" / "found_later.py").write_text("")
    (tmp_path / "job.py").write_text(PATHS)
    options = ["-O", "-W", "error::UserWarning", "-X", "dev"]
    out = one_process([*options, "job.py"], tmp_path)
    assert out.startswith("['new', 'new'] (1, ['default', 'error::UserWarning'], True, False)")
    run = [*options, "-m", "taskfarm", "run", "-n", "3", "--quiet", "job.py"]
    job = Job(python, run, tmp_path)
    assert job.end()[:2] == (0, out)
