"""What goes wrong in the first hour is told in one message, without frames of taskfarm."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import START_LIMIT, Job

SYNTAX = "def f(:\n"
START_SLOWLY = """
import os, time
if os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK"):
    open("starting", "w").close()
    time.sleep(0.3)
"""
TASKS = """
import time
from taskfarm import task

@task
def f(x):
    if x == 5:
        open("started", "w").close()
        time.sleep(60)
    return x

print(sum(f.map(range(1000), chunksize=1)))
"""


def test_ctrl_c_before_the_job_starts(start: Callable[..., Job], tmp_path: Path) -> None:
    # Python itself is still starting, so no handler of Python's could help.
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/at_start.py").write_text(START_SLOWLY)
    job = start(TASKS, 3)
    job.wait_for(tmp_path / "starting")
    job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    assert code != 0
    assert "Traceback" not in err
    # Open MPI's mpiexec ends its ranks before they can say anything.
    mpich = job.process.args[0].endswith(".venv/bin/python")  # type: ignore[index, union-attr]
    assert err.count("taskfarm: interrupted before the job started") == mpich, err


def test_ctrl_c_counts_and_tells_how_to_resume(start: Callable[..., Job], tmp_path: Path) -> None:
    job = start(TASKS, 3, options=["--journal", "run.db", "--grace", "1"])
    job.wait_for(tmp_path / "started")
    job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    assert code != 0
    (line,) = [line for line in err.splitlines() if "go on with" in line]
    assert " of 1,000 tasks are done" in line
    options = f"--resume --start-limit {START_LIMIT} --journal run.db --grace 1"
    assert line.endswith(f"-m taskfarm run -n 3 {options} job.py")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["syntax.py"], ['  File "FOLDER/syntax.py", line 1', "SyntaxError: invalid syntax"]),
        (["-m", "syntax"], ['  File "FOLDER/syntax.py", line 1', "SyntaxError: invalid syntax"]),
        (["missing.py"], ['  File "FOLDER/missing.py", line 1, in <module>', "ModuleNotFoundError: "]),
        (["-m", "missing"], ['  File "FOLDER/missing.py", line 1, in <module>', "ModuleNotFoundError: "]),
        (["-m", "nowhere.at_all"], ["taskfarm: there is no module 'nowhere.at_all' to run"]),
        (["-c", "1 / 0"], ['  File "<string>", line 1, in <module>', "ZeroDivisionError: "]),
    ],
)
def test_a_job_that_cannot_start_shows_only_its_own_frames(
    tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    (tmp_path / "syntax.py").write_text(SYNTAX)
    (tmp_path / "missing.py").write_text("import nowhere\n")
    code, out, err = in_one_process(tmp_path, *words)
    assert (code, out) == (2 if words[-1].startswith("nowhere") else 1, "")
    shown = [line for line in err.splitlines() if not line.startswith(("    ", "Traceback"))]
    assert len(shown) == len(expected), err
    for line, start in zip(shown, expected, strict=True):
        assert line.startswith(start.replace("FOLDER", str(tmp_path))), err


def test_ranks_after_the_job(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    for given in (["-n", "3"], ["-np", "auto"], ["x", "-n4"]):
        code, out, err = in_one_process(tmp_path, "job.py", *given)
        assert (code, out.split()) == (0, given)
        assert err.count("taskfarm: ") == err.count("stands after the job, so the job gets it") == 1, err
    for given in (["-n", "name"], ["--n", "3"], ["-name"]):
        assert in_one_process(tmp_path, "job.py", *given) == (0, " ".join(given) + "\n", "")


def in_one_process(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "taskfarm", "run", "--quiet", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


def test_auto_is_rank_0_and_a_worker_for_each_core(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os\nfrom taskfarm import Farm\n"
        "with Farm() as farm:\n    print(farm.num_workers == len(os.sched_getaffinity(0)))\n"
    )
    job = Job(python, ["-m", "taskfarm", "run", "-n", "auto", "--quiet", "job.py"], tmp_path)
    code, out, err = job.end()
    assert (code, out) == (0, "True\n"), err


def test_info_without_mpi(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", "/nowhere/libmpi.so")
    code, out, err = Job(python, ["-m", "taskfarm", "info"], tmp_path).end()
    assert (code, out) == (2, "")
    assert err.startswith("taskfarm: mpi4py finds no MPI library (")
    assert "pip install mpich" in err
    assert err.count("\n") == 1
