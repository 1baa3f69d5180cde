"""Ranks that die under ``mpiexec --with-ft ulfm``: the others go on, and the run ends."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job, rank_of

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("survives")

HEAD = """
import os, sys, time
from taskfarm import Farm, task
from taskfarm.errors import *

def work(x):
    time.sleep(0.001)
    if x in DEADLY:
        os.kill(os.getpid(), 9)
    return x
"""

SURVIVE = ["--survive"]


def test_without_a_loss_all_is_as_ever(run: Run) -> None:
    code, out, err = run(
        f"{HEAD}\nDEADLY = ()\nimport atexit\natexit.register(print, 'at exit')\n"
        "with Farm() as farm:\n    print(sum(farm.map(work, range(500))))\nsys.exit(7)\n",
        4,
        options=SURVIVE,
    )
    assert code == 7, err
    assert out.split("\n")[:2] == ["124750", "at exit"]
    assert "lost" not in err


def test_tasks_of_a_dead_worker_run_elsewhere_and_the_killer_fails(run: Run) -> None:
    code, out, err = run(
        f"{HEAD}\nDEADLY = (100,)\n"
        "with Farm() as farm:\n"
        "    got = list(farm.map(task(on_error='return')(work), range(1000)))\n"
        "    errors = [x for x in got if not isinstance(x, int)]\n"
        "    print(len(got), len(errors), type(errors[0]).__name__, errors[0])\n"
        "    print(sum(x for x in got if isinstance(x, int)))\n",
        6,
        options=SURVIVE,
    )
    assert code == 0, err
    assert "1000 1 TaskKilledWorkers task 100 work was running when 3 workers died" in out, out + err
    assert out.split("\n")[1] == str(499500 - 100)
    assert "taskfarm: lost 3 of 5 workers: rank " in err
    assert "(it died)" in err


@pytest.mark.parametrize("options", [[], ["--fail-on-loss"]])
def test_exit_code_after_losses(run: Run, options: list[str]) -> None:
    code, _, err = run(
        f"{HEAD}\nDEADLY = (5,)\n"
        "with Farm() as farm:\n    list(farm.map(task(on_error='return')(work), range(100)))\n",
        4,
        options=[*SURVIVE, "--max-kills", "1", *options],
    )
    assert code == (3 if options else 0), err
    assert "taskfarm: lost 1 of 3 workers" in err


def test_last_worker_dies(run: Run) -> None:
    code, out, err = run(
        f"{HEAD}\nDEADLY = range(0, 1000)\n"
        "try:\n    with Farm() as farm:\n        list(farm.map(work, range(100)))\n"
        "except WorkerLost as error:\n    print(error)\n    sys.exit(9)\n",
        3,
        options=SURVIVE,
    )
    assert code == 9, err
    assert "all workers are lost" in out


def test_large_data_on_their_way_when_a_worker_dies(run: Run) -> None:
    code, out, err = run(
        """
import os, threading, time
import numpy as np
from taskfarm import Farm, task

@task(on_error="return")
def double(x, array):
    if x in (3, 9):
        threading.Timer(0.003, os.kill, (os.getpid(), 9)).start()
    return 2 * array

with Farm() as farm:
    arrays = (np.full(1_000_000, i) for i in range(60))
    for i, array in enumerate(farm.map(double, range(60), arrays)):
        if isinstance(array, np.ndarray):
            assert (array == 2 * i).all()
        else:
            print(type(array).__name__)
print("fine")
""",
        8,
        options=[*SURVIVE, "--max-kills", "2"],
    )
    # A kill may come after its task has ended, and then costs one of the next tasks.
    assert code == 0, err
    *errors, last = out.split()
    assert last == "fine"
    assert len(errors) <= 2
    assert set(errors) <= {"TaskKilledWorkers"}


def test_rank_0_dies(start: Start, tmp_path: Path) -> None:
    job = start(
        f"{HEAD}\nDEADLY = ()\nfarm = Farm()\nfutures = [farm.submit(time.sleep, 600) for _ in range(9)]\n"
        "time.sleep(0.5)\nopen('started', 'w').close()\nos.kill(os.getpid(), 9)\n",
        4,
        options=SURVIVE,
    )
    job.wait_for(tmp_path / "started")
    job.end()


def test_worker_dies_before_the_farm_is_open(run: Run) -> None:
    code, out, err = run(
        """
import glob, os, time
from taskfarm import Farm
me = os.getpid()
for name in os.listdir(os.environ["PID_FOLDER"]):
    path = f"/proc/{name}/environ"
    if int(name) != me and os.path.exists(path) and b"OMPI_COMM_WORLD_RANK=2" in open(path, "rb").read():
        os.kill(int(name), 9)
with Farm() as farm:
    print(sum(farm.map(abs, range(100))))
""",
        4,
        options=SURVIVE,
    )
    assert code == 0, err
    assert out.startswith("4950")
    assert "lost 1 of 3 workers" in err


def test_killed_from_outside_at_any_time(start: Start, tmp_path: Path) -> None:
    job = start(
        f"{HEAD}\nDEADLY = ()\n"
        "with Farm() as farm:\n"
        "    open('started', 'w').close()\n"
        "    print(sum(farm.map(work, range(5000))))\n",
        6,
        options=SURVIVE,
    )
    job.wait_for(tmp_path / "started")
    ranks = {rank_of(pid): pid for pid in map(int, os.listdir(job.pids))}
    for number in (2, 4, 5):
        os.kill(ranks[number], signal.SIGKILL)
    code, out, err = job.end()
    assert code == 0, err
    assert out.strip() == str(sum(range(5000)))
    assert "lost 3 of 5 workers" in err
