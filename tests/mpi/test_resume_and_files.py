"""Real runs: what a resumed run takes from its journal, and which files runs write or refuse to write."""

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]

DRAWS = """
import os
import taskfarm
from types import SimpleNamespace
from taskfarm import Farm, task

LIMITS = SimpleNamespace(low=1)

def set_up(scale):
    global SCALE
    SCALE = scale

def ran(name, x):
    with open(f"ran.{os.getpid()}", "a") as file:
        file.write(f"{name} ")
    return x

@task
def plain(x):
    return ran("plain", SCALE * x + LIMITS.low)

@task(isolate=True)
def draw(x):
    return ran("draw", int(taskfarm.rng().integers(1 << 40)))

with Farm(initializer=set_up, initargs=(3,)) as farm:
    print(sum(farm.map(plain, range(20))), sum(farm.map(draw, range(5))))
"""


def calls(folder: Path) -> list[int]:
    """Calls of `plain` and of `draw` since the last time."""
    names = [name for path in folder.glob("ran.*") for name in path.read_text().split()]
    for path in folder.glob("ran.*"):
        path.unlink()
    return [names.count("plain"), names.count("draw")]


def test_only_what_has_changed_runs_again(run: Run, tmp_path: Path) -> None:
    kept = ["--quiet", "--journal", "run.db", "--resume", "--seed"]
    _, first, err = run(DRAWS, 3, options=[*kept, "1"])
    assert (first.split()[0], calls(tmp_path)) == ("590", [20, 5]), err
    moved = "# A comment.\n" + DRAWS
    for code, seed, expected in [
        (moved, "1", [0, 0]),
        (moved, "2", [0, 5]),
        (moved.replace("low=1", "low=2"), "2", [20, 0]),
        (moved.replace("(3,)", "(4,)"), "2", [20, 5]),
    ]:
        code, out, err = run(code, 3, options=[*kept, seed])
        assert (code, calls(tmp_path)) == (0, expected), err
        assert (out == first) == (expected == [0, 0])


def test_files_of_runs_without_tasks(run: Run, tmp_path: Path) -> None:
    files = ["--trace", "run.json.gz", "--report", "run.html", "--status", "run.status"]
    job = "from taskfarm import Farm\nwith Farm() as farm: print(*farm.map(abs, [-1]))\n"
    kept = ["--quiet", "--journal", "run.db", "--resume", *files]
    for code, out in [("print('none')", "none\n"), (job, "1\n"), (job, "1\n")]:
        assert run(code, 3, options=kept)[:2] == (0, out)
    assert json.loads((tmp_path / "run.status").read_text())["ended"]
    code, out, err = run(job, 3, options=["--quiet", "--trace", "run.html"])
    assert (code, out) == (2, "")
    assert err.count("taskfarm: ") == 1
    assert "'run.html' is not a trace file, and would be overwritten" in err


def test_files_are_refused_under_an_mpiexec_of_the_user(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("print('ran')")
    start = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    words = [str(python.with_name("mpiexec")), "-n", "3", str(python), "-m", "taskfarm"]
    if "openmpi" in str(python):
        words[1:1] = ["--allow-run-as-root"]
    for name in ("trace", "report", "status"):
        job = Job(python, ["-c", start, *words, "run", f"--{name}", "job.py", "job.py"], tmp_path)
        code, out, err = job.end()
        assert (code, out) == (2, "")
        assert f"the {name} and the job are the same file" in err
    assert (tmp_path / "job.py").read_text() == "print('ran')"
