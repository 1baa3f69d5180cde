"""What a task can do to the process that runs it, at each moment, and what it costs.

{raise, SystemExit, abort, segfault, kill -9, endless C loop, memory bomb}
  x {unpickling the call, running, pickling the result}
  x {plain, isolated, a launch that survives dead ranks}
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

HEAD = """
import ctypes, os, resource, sys, time
from taskfarm import Farm, task
from taskfarm.errors import *

def do(what):
    if what == "raise":
        raise ValueError("as asked")
    if what == "exit":
        sys.exit(3)
    if what == "abort":
        os.abort()
    if what == "segfault":
        ctypes.string_at(0)
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "loop":
        while True:
            pow(7, 10**9)
    if what == "bomb":
        hoard = []
        while True:
            hoard.append(b"x" * 10**7)
    return what

class Does:
    "Does it when it is unpickled."
    def __init__(self, what):
        self.what = what
    def __reduce__(self):
        return do, (self.what,)

class DoesLater:
    "Does it when it is pickled."
    def __init__(self, what):
        self.what = what
    def __reduce__(self):
        do(self.what)
        return str, (self.what,)

def loading(argument):
    return argument
def running(what):
    return do(what)
def returning(what):
    return DoesLater(what)

def call(farm, moment, what, **options):
    function = {"loading": loading, "running": running, "returning": returning}[moment]
    return farm.submit(task(**options)(function), Does(what) if moment == "loading" else what)

MOMENTS = ("loading", "running", "returning")

def report(future, name):
    error = future.exception(timeout=240)
    print(name, type(error).__name__, " ".join(str(error).split()), flush=True)
"""

MOMENTS = ("loading", "running", "returning")
RAISED = {
    "loading": dict.fromkeys(("raise", "exit", "bomb"), "CallNotLoadable"),
    "running": {"raise": "ValueError", "exit": "TaskExited", "bomb": "MemoryError"},
    "returning": {
        "raise": "ResultNotPicklable",
        "exit": "ResultNotPicklable",
        "bomb": "ResultNotPicklable",
    },
}


def reported(out: str) -> dict[str, str]:
    """What the job reported, by moment and deed."""
    return {" ".join(line.split()[:2]): " ".join(line.split()[2:]) for line in out.splitlines()}


def test_isolated_each_costs_its_own_task(run: Run) -> None:
    code, out, err = run(
        f"""{HEAD}
DEEDS = ("raise", "exit", "abort", "segfault", "kill", "loop", "bomb")
with Farm() as farm:
    limits = {{"loop": {{"timeout": 1.0}}, "bomb": {{"memory": "400MB"}}}}
    futures = {{
        f"{{moment}} {{what}}": call(farm, moment, what, isolate=True, **limits.get(what, {{}}))
        for moment in MOMENTS for what in DEEDS
    }}
    for name, future in futures.items():
        report(future, name)
    print("afterwards", "it", sum(farm.map(task(isolate=True)(abs), range(-9, 0))))
""",
        3,
    )
    assert code == 0, err
    ends = {
        "abort": "by SIGABRT",
        "segfault": "by SIGSEGV",
        "kill": "by SIGKILL",
        "loop": "passed its limit of 1 s",
        "bomb": "past its limit of 400 MB",
    }
    types = {"loop": "TaskTimeout", "bomb": "TaskMemory"}
    found = reported(out)
    for moment in MOMENTS:
        for what, text in ends.items():
            line = found[f"{moment} {what}"]
            assert line.startswith(types.get(what, "TaskCrashed")), line
            assert text in line
        for what in ("raise", "exit"):
            assert found[f"{moment} {what}"].startswith(RAISED[moment][what]), found
    assert found["afterwards it"] == "45"


def test_plain_what_raises_costs_its_own_task(run: Run) -> None:
    # A limit of the system turns a memory bomb into an exception; without one, the system kills the rank.
    code, out, err = run(
        f"""{HEAD}
def limit():
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + 300 * 10**6, resource.RLIM_INFINITY))

with Farm(initializer=limit) as farm:
    futures = {{
        f"{{moment}} {{what}}": call(farm, moment, what)
        for moment in MOMENTS for what in ("raise", "exit", "bomb")
    }}
    for name, future in futures.items():
        report(future, name)
    print("afterwards", "it", sum(farm.map(abs, range(-9, 0))))
""",
        3,
    )
    assert code == 0, err
    found = reported(out)
    for moment in MOMENTS:
        for what, expected in RAISED[moment].items():
            assert found[f"{moment} {what}"].startswith(expected), found
    assert found["afterwards it"] == "45"


@pytest.mark.parametrize("what", ["abort", "segfault", "kill"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_plain_what_ends_a_rank_ends_the_job(run: Run, moment: str, what: str) -> None:
    code, out, _ = run(
        f"{HEAD}\nwith Farm() as farm:\n    report(call(farm, {moment!r}, {what!r}), 'it')\n", 3
    )
    assert code != 0
    assert "afterwards" not in out


@pytest.mark.parametrize("moment", MOMENTS)
def test_plain_endless_loop_ends_with_the_job(start: Start, tmp_path: Path, moment: str) -> None:
    job = start(
        f"""{HEAD}
with Farm() as farm:
    future = call(farm, {moment!r}, "loop")
    time.sleep(0.3)
    open("started", "w").close()
    future.result()
""",
        3,
        options=["--walltime", "2s", "--grace", "0.5"],
    )
    job.wait_for(tmp_path / "started")
    code, _, err = job.end()
    assert code == 75, err
    assert "taskfarm: the walltime: 0 of 1 tasks are done, 1 was cut short" in err


def test_surviving_launch_each_costs_its_own_task_and_a_rank(run: Run, survives: None) -> None:
    code, out, err = run(
        f"""{HEAD}
with Farm() as farm:
    # One after the other: a worker that dies may take with it what the task before had to say.
    for moment in MOMENTS:
        for what in ("raise", "exit", "abort", "segfault", "kill"):
            report(call(farm, moment, what), f"{{moment}} {{what}}")
    print("afterwards", "it", sum(farm.map(abs, range(-9, 0))))
""",
        12,
        options=["--survive", "--max-kills", "1"],
    )
    assert code == 0, err
    found = reported(out)
    for moment in MOMENTS:
        for what in ("abort", "segfault", "kill"):
            assert found[f"{moment} {what}"].startswith("TaskKilledWorkers"), found
        for what in ("raise", "exit"):
            assert found[f"{moment} {what}"].startswith(RAISED[moment][what]), found
    assert found["afterwards it"] == "45"
    assert "taskfarm: lost 9 of 11 workers" in err
