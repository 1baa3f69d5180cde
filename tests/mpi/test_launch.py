"""How a run starts: the command line, the job's surroundings, roles, thread levels."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]

SURROUNDINGS = "import sys; print(sys.argv, repr(sys.path[0]), __name__, globals().get('__file__'))\n"


def words(python: Path, *arguments: str, folder: Path) -> tuple[int, str, str]:
    return Job(python, ["-m", "taskfarm", *arguments], folder).end()


@pytest.mark.parametrize(
    "arguments", [["sub/job.py", "a", "-n", "3"], ["-m", "sub.job", "-x"], ["-c", SURROUNDINGS, "b"]]
)
@pytest.mark.parametrize("ranks", [[], ["-n", "2"]])
def test_surroundings_are_pythons(
    python: Path, tmp_path: Path, arguments: list[str], ranks: list[str]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/job.py").write_text(SURROUNDINGS)
    plain = subprocess.run(
        [python, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240
    )
    code, out, err = words(python, "run", *ranks, *arguments, folder=tmp_path)
    assert code == 0, err
    assert out == plain.stdout


def test_functions_of_every_kind(run: Run, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(
        "from taskfarm import task\n\n@task\ndef third(x):\n    return x / 3\n\n"
        "class Scale:\n    def __init__(self, by):\n        self.by = by\n"
        "    def times(self, x):\n        return self.by * x\n"
    )
    code, out, err = run(
        """
import functools, operator
import beside
from taskfarm import Farm, task

class Here:
    def __init__(self, by):
        self.by = by
    def plus(self, x):
        return self.by + x
    @task
    def minus(self, x):
        return x - self.by

def closure(by):
    return lambda x: x ** by

@task(name="named")
def decorated(x, *, by=1):
    "A docstring."
    return x * by

with Farm() as farm:
    for function in (
        abs, lambda x: -x, closure(3), Here(10).plus, Here(1).minus, beside.third, beside.Scale(7).times,
        functools.partial(operator.mul, 5), decorated, beside.third.options(chunksize=2), str.upper,
    ):
        values = ["a", "b"] if function is str.upper else [3, -6]
        print(*farm.map(function, values), farm.submit(function, values[0]).result())
    print(decorated.submit(2, by=4).result(), decorated(2, by=5), decorated.name, decorated.__doc__)
    print(Here(1).minus(5), list(Here(1).minus.map([5, 6])), Here(by=2).minus.submit(7).result())
    print(*farm.starmap(pow, [(2, 3), (3, 2)]), *farm.map(pow, [2, 3], [5, 6, 7]))
""",
        3,
    )
    assert code == 0, err
    assert out.splitlines() == [
        "3 6 3", "-3 6 -3", "27 -216 27", "13 4 13", "2 -7 2", "1.0 -2.0 1.0", "21 -42 21",
        "15 -30 15", "3 -6 3", "1.0 -2.0 1.0", "A B A", "8 10 named A docstring.", "4 [4, 5] 5",
        "8 9 32 729",
    ]  # fmt: skip


def test_workers_do_not_run_the_job(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        "open(f'ran{__import__(\"os\").getpid()}', 'w').close()\n"
        "from taskfarm import task\n@task\ndef f(x):\n    return x\nprint(sum(f.map(range(100))))\n",
        4,
    )
    assert code == 0, err
    assert len(list(tmp_path.glob("ran*"))) == 1


def test_farms_one_after_the_other(run: Run) -> None:
    code, out, err = run(
        """
import os
from taskfarm import Farm, task

state = None
def begin(value):
    global state
    state = value
def read(x):
    return state

@task
def double(x):
    return 2 * x

print(double.submit(1).result())
for value in (1, 2):
    with Farm(initializer=os.putenv, initargs=("VALUE", str(value))) as farm:
        print(farm.num_workers, double.submit(value).result(), sum(double.map(range(50))))
        with Farm() as inner:
            print("nested:", double.submit(inner.num_workers).result())
try:
    farm.submit(abs, 1)
except RuntimeError as error:
    print(error)
print(double.submit(3).result())
""",
        3,
    )
    assert code == 0, err
    assert out.splitlines() == [
        "2", "2 2 2450", "nested: 4", "2 4 2450", "nested: 4",
        "cannot schedule new futures after shutdown", "6",
    ]  # fmt: skip


SPMD = """
import sys
from mpi4py import MPI
from taskfarm import Farm

world = MPI.COMM_WORLD
color = world.rank % 2
comm = world.Split(color)
comm.bcast("the user's own message", root=0)
with Farm.from_comm(comm) as farm:
    if farm is not None:
        total = sum(farm.map(lambda x: x + color, range(1000)))
        print(color, farm.num_workers, total, flush=True)
totals = comm.allreduce(1)
with Farm.from_comm(comm) as farm:
    assert (farm is None) == (comm.rank > 0)
    if farm is not None:
        assert farm.submit(abs, -1).result() == 1
comm.Barrier()
"""


def test_spmd_on_two_disjoint_communicators(python: Path, tmp_path: Path) -> None:
    (tmp_path / "spmd.py").write_text(SPMD)
    mpiexec = str(python.with_name("mpiexec"))
    job = Job(Path("/usr/bin/env"), [mpiexec, "-n", "5", str(python), "spmd.py"], tmp_path)
    code, out, err = job.end()
    assert code == 0, err
    assert sorted(out.splitlines()) == ["0 2 499500", "1 1 500500"]


def test_python_without_mpiexec(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from taskfarm import task\n@task\ndef f(x):\n    return x + 1\n"
        "print(list(f.map(range(3))), f.submit(5).result())\n"
    )
    code, out, err = Job(python, ["job.py"], tmp_path).end()
    assert code == 0, err
    assert out == "[1, 2, 3] 6\n"
    assert err.count("taskfarm: one rank") == 1


def test_job_under_mpiexec_without_taskfarm_run(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("from taskfarm import Farm\nFarm()\n")
    mpiexec = str(python.with_name("mpiexec"))
    job = Job(Path("/usr/bin/env"), [mpiexec, "-n", "3", str(python), "job.py"], tmp_path)
    code, _, err = job.end()
    assert code != 0
    assert err.count("3 processes were started, and each of them would run the whole job") == 1
    assert "Traceback" not in err


def test_pdb_in_a_serial_job(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from taskfarm import task\n@task\ndef f(x):\n    breakpoint()\n    return x + 1\n"
        "print(f.submit(41).result())\n"
    )
    done = subprocess.run(
        [python, "job.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        input="p x * 100\nc\n",
    )
    assert done.returncode == 0, done.stderr
    assert "4100" in done.stdout
    assert done.stdout.rstrip().endswith("42")


@pytest.mark.parametrize(
    "setting",
    [
        {"MPI4PY_RC_THREAD_LEVEL": "funneled"},
        {"MPI4PY_RC_THREAD_LEVEL": "serialized"},
        {"MPI4PY_RC_THREADS": "0"},
        {"MPI4PY_RC_RECV_MPROBE": "0"},
    ],
)
def test_settings_of_mpi4py(run: Run, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    code, out, err = run(
        """
import numpy as np
from taskfarm import Farm, as_completed
with Farm() as farm:
    print(sum(farm.map(abs, range(1000))))
    print(sum(f.result() for f in as_completed([farm.submit(abs, -i) for i in range(100)])))
    print(sum(a.nbytes for a in farm.map(np.zeros, [100_000] * 20)))
    farm.submit(abs, 1)
""",
        3,
    )
    assert code == 0, err
    assert out.split() == ["499500", "4950", "16000000"]


def test_info(python: Path, tmp_path: Path) -> None:
    code, out, err = words(python, "info", folder=tmp_path)
    assert code == 0, err
    assert "MPI_THREAD_MULTIPLE" in out
    assert "ranks     1" in out
    assert "trouble   none" in out
    mpiexec = str(python.with_name("mpiexec"))
    job = Job(Path("/usr/bin/env"), [mpiexec, "-n", "3", str(python), "-m", "taskfarm", "info"], tmp_path)
    code, out, err = job.end()
    assert code == 0, err
    assert f"ranks     3: 3 on {os.uname().nodename}" in out
    assert out.count("taskfarm ") == 1
    assert re.search(r"^gangs .*\(ranks=\); a communicator of all workers costs [\d,]+ us$", out, re.M), out


@pytest.mark.parametrize(
    ("under_mpiexec", "arguments", "complaint"),
    [
        (False, ["run", "-n", "0", "job.py"], "the number of ranks must be 1 or more"),
        (True, ["run", "-n", "3", "missing.py"], "there is no file 'missing.py'"),
        (False, ["run", "--progress", "loud", "job.py"], "invalid choice: 'loud'"),
        (True, ["run"], "nothing to run"),
        (False, ["run", "-m"], "-m needs an argument"),
        (False, ["walk"], "invalid choice: 'walk'"),
        (True, ["run", "--retries", "-1", "job.py"], "must be a whole number of 0 or more"),
        (False, ["run", "--timeout", "0", "job.py"], "must be a positive number of seconds"),
        (False, ["run", "--resource", "x=1/planet", "job.py"], "must be worker, host or run, not 'planet'"),
        (False, ["run", "--memory", "lots", "job.py"], "must be a number of bytes such as 2GB"),
        (False, ["run", "--walltime", "90", "job.py"], "a time must look like 01:30:00"),
        (False, ["run", "--walltime", "10s", "job.py"], "--grace 20 leaves the tasks no time"),
        (False, ["run", "--resume", "job.py"], "--resume needs the journal to resume from"),
        (True, ["run", "--journal", "no/run.db", "job.py"], "for the journal: create it first"),
        (True, ["run", "--survive", "job.py"], "--survive needs Open MPI"),
        (False, ["journal", "missing.db"], "missing.db"),
        (False, ["run", "--status", "job.py", "job.py"], "the status and the job are the same file"),
    ],
)
def test_wrong_use(
    python: Path, tmp_path: Path, arguments: list[str], complaint: str, under_mpiexec: bool
) -> None:
    (tmp_path / "job.py").write_text("print('ran')\n")
    line = [str(python), "-m", "taskfarm", *arguments]
    if under_mpiexec:
        line = [str(python.with_name("mpiexec")), "-n", "3", *line]
    code, out, err = Job(Path("/usr/bin/env"), line, tmp_path).end()
    assert code == 2
    assert out == ""
    assert err.count(complaint) == 1
    if not under_mpiexec:
        assert len(err.splitlines()) == 1


def test_progress_in_a_log(run: Run, python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from taskfarm import Farm\nwith Farm() as farm:\n    print(sum(farm.map(abs, range(100))))\n"
    )
    for ranks in ("1", "3"):
        arguments = ("run", "-n", ranks, "--progress", "on", "job.py")
        code, _, err = words(python, *arguments, folder=tmp_path)
        assert code == 0, err
        assert "taskfarm: 100/100 tasks in " in err
        assert "failed 0" in err
