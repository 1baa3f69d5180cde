"""Journals in real runs: interrupted by the walltime or killed, and gone on with."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

JOB = """
import os, sys, time
from taskfarm import Farm, task

@task
def work(x):
    time.sleep(0.01)
    with open(f"ran.{os.getpid()}", "a") as file:
        file.write(f"{x} ")
    return x

with Farm() as farm:
    for x in farm.map(work, range(150)):
        if x == 20:
            open("started", "w").close()
    print(sum(farm.map(work, range(150))), farm.submit(work, 7).result())
"""

EXPECTED = "11175 7\n"
"""The second map and the last task are the second and the third such call: they are not the first one."""

KEPT = ["--journal", "run.db", "--resume"]


def ran(folder: Path) -> int:
    """Calls that have run in all."""
    return sum(len(path.read_text().split()) for path in folder.glob("ran.*"))


def go_on(python: Path, err: str, folder: Path) -> tuple[int, str, str]:
    """Run the command that the last line names."""
    command = err.partition("go on with: ")[2].splitlines()[0]
    words = shlex.split(command)
    assert words[0].startswith("python")
    return Job(python, words[1:], folder).end()


def test_walltime_and_the_command_that_goes_on(run: Run, python: Path, tmp_path: Path) -> None:
    options = ["--walltime", "2s", "--grace", "1", "--journal", "run.db"]
    code, out, err = run(JOB, 3, options=options)
    assert code == 75, err
    assert out == ""
    assert "taskfarm: the walltime: " in err
    ends = 0
    while code == 75:
        code, out, err = go_on(python, err, tmp_path)
        ends += 1
        assert ends < 9
    assert (code, out) == (0, EXPECTED), err
    assert ran(tmp_path) == 301, "a task was run again, or not at all"


def test_signal_and_resume(start: Start, run: Run, tmp_path: Path) -> None:
    job = start(JOB, 3, options=KEPT)
    job.wait_for(tmp_path / "started")
    job.process.send_signal(signal.SIGUSR1)
    code, _, err = job.end()
    assert code == 75, err
    assert "taskfarm: SIGUSR1: " in err
    code, out, err = run(JOB, 4, options=KEPT)
    assert (code, out) == (0, EXPECTED), err
    assert ran(tmp_path) == 301


def test_second_signal_leaves_running_tasks_their_grace(start: Start, tmp_path: Path) -> None:
    job = start(
        """
import time
from taskfarm import Farm
def work(x):
    open("started", "w").close()
    time.sleep(2)
with Farm() as farm:
    list(farm.map(work, range(10)))
""",
        3,
    )
    job.wait_for(tmp_path / "started")
    for _ in range(3):
        time.sleep(0.3)
        job.process.send_signal(signal.SIGUSR1)
    code, _, err = job.end()
    assert code == 75, err
    assert "taskfarm: SIGUSR1: 2 of 10 tasks are done; " in err
    assert "Traceback" not in err


def test_finished_run_is_not_run_again(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        code, out, err = run(JOB, 3, options=KEPT)
        assert (code, out) == (0, EXPECTED), err
    assert ran(tmp_path) == 301


def test_existing_journal_is_refused_without_resume(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("something of the user's")
    code, out, err = run("print('ran')", 3, options=["--journal", "run.db"])
    assert code == 2
    assert out == ""
    assert err.count("taskfarm: ") == 1
    assert "the journal run.db already exists: add --resume to continue it" in err
    assert (tmp_path / "run.db").read_text() == "something of the user's"


def test_damaged_journal_is_refused(run: Run, tmp_path: Path) -> None:
    run(JOB.replace("150", "30"), 3, options=KEPT)
    path = tmp_path / "run.db"
    path.write_bytes(path.read_bytes()[:5000])
    before = path.read_bytes()
    code, out, err = run(JOB, 3, options=KEPT)
    assert (code, out) == (2, "")
    assert err.count("taskfarm: ") == 1
    assert "run.db" in err
    assert path.read_bytes() == before


def test_changed_code_is_noticed(run: Run) -> None:
    job = "from taskfarm import Farm\ndef f(x):\n    return x + 1\n"
    job += "with Farm() as farm:\n    print(sum(farm.map(f, range(9))))\n"
    assert run(job, 3, options=KEPT)[1] == "45\n"
    code, out, err = run(job.replace("x + 1", "x + 2"), 3, options=KEPT)
    assert (code, out) == (0, "54\n")
    assert "taskfarm: the code of 'f' has changed since the journal was written" in err


def test_failed_tasks_run_again_and_are_listed(run: Run, python: Path, tmp_path: Path) -> None:
    job = """
import os
from taskfarm import Farm, task

@task(on_error="return")
def inverse(x):
    return 1 / (x + os.path.exists("mended"))

with Farm() as farm:
    print(*(type(y).__name__ for y in farm.map(inverse, [1, 0, 2])))
"""
    assert run(job, 3, options=KEPT)[1] == "float ZeroDivisionError float\n"
    done = subprocess.run(
        [python, "-m", "taskfarm", "journal", "run.db"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "tasks done 2, tasks failed 1" in done.stdout
    assert "return 1 / (x + os.path.exists" in done.stdout
    (tmp_path / "mended").touch()
    assert run(job, 3, options=KEPT)[1] == "float float float\n"


def test_serial_run_keeps_a_journal_too(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB.replace("150", "30"))
    for _ in range(2):
        code, out, err = Job(python, ["-m", "taskfarm", "run", *KEPT, "job.py"], tmp_path).end()
        assert (code, out) == (0, "435 7\n"), err
    assert ran(tmp_path) == 61


@pytest.mark.parametrize(
    ("kind", "seed", "kills"),
    [("survive", 11, 6), ("isolated", 12, 20), ("resume", 13, 3), ("resume", 14, 3)],
)
def test_chaos(kind: str, seed: int, kills: int) -> None:
    words = ["--kind", kind, "--seed", str(seed), "--tasks", "20000", "--kills", str(kills)]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/chaos", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
