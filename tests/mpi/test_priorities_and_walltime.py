"""Resources, priorities and the walltime in real runs: each shows several things, as a start is slow."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .conftest import Job

Start = Callable[..., Job]

HOLDING = """
import os, time
from concurrent.futures import wait

import taskfarm
from taskfarm import task
from taskfarm.errors import UsageError


def until_told():
    while not os.path.exists("go"):
        time.sleep(0.01)


@task(needs={"seat": 2, "gpu": 1}, priority=-1)
def hold(x):
    open("started", "w").close()
    until_told()
    return os.environ["CUDA_VISIBLE_DEVICES"], taskfarm.current().units


@task(needs={"seat": 1})
def seated(x):
    time.sleep(0.02)
    return taskfarm.current().units["seat"], time.monotonic()


@task(isolate=True, retries=3)
def endless():
    open("endless", "w").close()
    while True:
        time.sleep(60)


@task(max_tasks=2)
def pid(x):
    return os.getpid()


held = hold.submit(0)
while not os.path.exists("started"):
    time.sleep(0.01)
waiting, cancelled = hold.submit(1), endless.submit()
results = list(seated.map(range(20)))
assert {units for units, _ in results} <= {(0,), (1,), (2,)}, results
while not os.path.exists("endless"):
    time.sleep(0.01)
assert cancelled.cancel() and cancelled.cancelled() and not held.cancel()
pids = list(pid.map(range(8)))
assert max(map(pids.count, pids)) <= 2, pids
try:
    seated.options(needs={"seat": 9}).submit(1)
except UsageError as error:
    print("refused:", error)
open("ready", "w").close()
for device, units in (held.result(), waiting.result()):
    assert units["gpu"] == (int(device),) and len(units["seat"]) == 2, units
print("ended")
"""


def test_resources_are_held_and_top_says_who_has_them(start: Start, tmp_path: Path) -> None:
    options = ["--resource", "seat=3/run", "--gpus-per-node", "2", "--status", "run.status", "--quiet"]
    job = start(HOLDING, 4, options=options)
    job.wait_for(tmp_path / "ready")
    words = [sys.executable, "-m", "taskfarm", "top", "run.status", "--explain", "1"]
    asked = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    (tmp_path / "go").touch()
    code, out, err = job.end()
    assert (code, out.splitlines()[-1]) == (0, "ended"), err
    assert "refused: seated needs seat=9, which no worker offers; offered: seat=3 in all" in out
    assert asked.returncode == 0, asked.stderr
    assert (
        "task 1 hold is queued: it needs gpu=1 and seat=2; 1 of seat=3 of the run is free" in asked.stdout
    )


TIMED = """
import math, sys, time
import taskfarm
from taskfarm import task
from taskfarm.errors import TaskTooLong

@task(expect=lambda x: 0.01 if x % 2 else LONG)
def work(x):
    time.sleep(0.01)
    return taskfarm.current().left

@task(isolate=True)
def left():
    return taskfarm.current().left

@task(expect="1h", on_error="return")
def too_long():
    raise SystemExit("it was started")

assert isinstance(too_long.submit().result(), TaskTooLong), "it fails at once"
LONG = left.submit().result() - 0.5
assert 0 < LONG < 300
time.sleep(1)
total = 0
for seconds in work.map(range(1000), unordered=True):
    assert 0 < seconds < 300
    total += 1
    if total == 500:
        print("the short ones are done", flush=True)
raise SystemExit("the long ones were started, too")
"""


def test_what_would_not_end_in_time_does_not_start(start: Start, tmp_path: Path) -> None:
    options = ["--walltime", "300s", "--grace", "2", "--journal", "run.journal"]
    code, out, err = start(TIMED, 3, options=options).end()
    assert (code, out) == (75, "the short ones are done\n"), err
    assert "none of 500 tasks left would end in the " in err
    assert "501 of 1,002 tasks are done, 1 failed; go on with: " in err
    assert os.path.exists(tmp_path / "run.journal")
