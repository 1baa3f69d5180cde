"""Looking at a run from outside, while it runs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .conftest import Job, rank_of

Start = Callable[..., Job]

JOB = """
import time
from taskfarm import Farm, task

def work(x):
    time.sleep(0.02 if x else 3)
    return x

with Farm() as farm:
    first = farm.submit(work, 0)
    for x in farm.map(work, range(1, 100)):
        if x == 20:
            open("started", "w").close()
    first.result()
"""


def test_top_and_signal(start: Start, python: Path, tmp_path: Path) -> None:
    job = start(JOB, 3, options=["--status", "run.status"])
    job.wait_for(tmp_path / "started")
    time.sleep(1.2)
    words = [python, "-m", "taskfarm", "top", "run.status", "--once"]
    shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert " of 100 tasks in " in shown.stdout
    assert "task 0 work" in shown.stdout
    (rank_0,) = [pid for pid in map(int, os.listdir(job.pids)) if rank_of(pid) == 0]
    os.kill(rank_0, signal.SIGUSR2)
    code, _, err = job.end()
    assert code == 0, err
    assert err.count(" of 100 tasks in ") == 1
    shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert "100 of 100 tasks" in shown.stdout
    assert "; ended" in shown.stdout
