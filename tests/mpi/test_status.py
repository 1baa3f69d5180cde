"""Looking at a run from outside, while it runs."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .conftest import Job, rank_of

Start = Callable[..., Job]

JOB = """
import os, time
from taskfarm import Farm, task

def work(x):
    for _ in range(0 if x else 1200):
        if os.path.exists("go"):
            break
        time.sleep(0.05)
    time.sleep(0.02)
    return x

with Farm() as farm:
    first = farm.submit(work, 0)
    for x in farm.map(work, range(1, 100)):
        if x == 20:
            open("started", "w").close()
    first.result()
"""


STUCK = """
import re, time
from taskfarm import task

def deep(x):
    open(f"started{x}", "w").close()
    time.sleep(120)

@task
def stuck(x):
    deep(x)

@task(isolate=True)
def alone(x):
    deep(x)

@task
def holds(x):
    open(f"started{x}", "w").close()
    re.match(r"(a+)+$", "a" * 60 + "b")

for number, one in enumerate((stuck, alone, holds)):
    one.submit(number)
"""


def test_stack_of_a_stuck_task(start: Start, python: Path, tmp_path: Path) -> None:
    job = start(STUCK, 4, options=["--status", "run.status"])
    for number in range(3):
        job.wait_for(tmp_path / f"started{number}")
    time.sleep(1.2)

    def stack(*words: str) -> tuple[int, str]:
        command = [python, "-m", "taskfarm", "stack", *words]
        shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        return shown.returncode, shown.stdout + shown.stderr

    code, text = stack("run.status", "1", "2", "3")
    assert code == 0, text
    for name, line in (("stuck", "deep"), ("alone", "deep")):
        assert f"{name}:\n" in text
        assert line in text
    assert text.count("cannot answer: its task holds the interpreter") == 1
    code, text = stack("run.status", "77")
    assert code == 2
    assert "there is no rank 77: the workers are ranks 1 to 3" in text
    assert text.count("\n") == 1
    job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    assert re.search(r'File ".*job.py", line \d+ in holds', err), err
    assert stack("run.status") == (2, "taskfarm: the run of 'run.status' has ended\n")
    assert stack("none")[0] == 2


def test_top_and_signal(start: Start, python: Path, tmp_path: Path) -> None:
    job = start(JOB, 3, options=["--status", "run.status"])
    job.wait_for(tmp_path / "started")
    words = [python, "-m", "taskfarm", "top", "run.status", "--once"]
    for _ in range(30):  # the file is written about once a second
        shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
        if "task 0 work" in shown.stdout:
            break
        time.sleep(0.5)
    assert " of 100 tasks in " in shown.stdout
    assert "task 0 work" in shown.stdout
    watching = subprocess.Popen(words[:-1], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert (watching.communicate(timeout=240)[1], watching.returncode) == (b"", 0)
    (rank_0,) = [pid for pid in map(int, os.listdir(job.pids)) if rank_of(pid) == 0]
    os.kill(rank_0, signal.SIGUSR2)
    assert job.process.stderr is not None
    assert any(" of 100 tasks in " in line for line in job.process.stderr)
    (tmp_path / "go").touch()
    code, _, err = job.end()
    assert code == 0, err
    assert err.count(" of 100 tasks in ") == 0
    shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
    assert "100 of 100 tasks" in shown.stdout
    assert "; ended" in shown.stdout
