"""Whatever users and machines do: each run ends, or goes on, and says so."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job, rank_of

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

PLAIN = """
from taskfarm import Farm
with Farm() as farm:
    print(sum(farm.map(abs, range(100))))
"""

SLOW = """
import time
from taskfarm import Farm
def work(x):
    time.sleep(0.01)
    return x
with Farm() as farm:
    open("started", "w").close()
    print(sum(farm.map(work, range(500))))
"""


def hook(folder: Path, code: str, rank: int = 2) -> None:
    """Run code at the start of one rank's interpreter."""
    (folder / "hooks").mkdir(exist_ok=True)
    (folder / "hooks/at_start.py").write_text(
        f"import os\nif '{rank}' in (os.environ.get('PMI_RANK'), os.environ.get('OMPI_COMM_WORLD_RANK')):\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
    )


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("how", ["os._exit(0)", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_rank_that_dies_while_starting(run: Run, tmp_path: Path, how: str, rank: int) -> None:
    hook(tmp_path, how, rank)
    code, out, _ = run(PLAIN, 4, options=["--start-limit", "3"])
    assert code != 0
    assert "4950" not in out


def test_worker_that_cannot_import_taskfarm(run: Run, tmp_path: Path) -> None:
    hook(tmp_path, "import sys\nsys.modules['taskfarm'] = None")
    code, out, err = run(PLAIN, 4, options=["--start-limit", "3"])
    assert code != 0
    assert "4950" not in out
    assert "taskfarm" in err


def test_worker_of_another_version(run: Run, tmp_path: Path) -> None:
    hook(tmp_path, "import taskfarm.worker.worker\ntaskfarm.worker.worker.__version__ = '0.0.1'")
    code, out, err = run(PLAIN, 4)
    # Open MPI's mpiexec has given 213 instead of 1.
    assert code in (1, 213)
    assert out == ""
    assert "rank 2 on" in err
    assert "runs taskfarm 0.0.1" in err
    assert "start all ranks from one environment" in err


# MPI must start within the same limit, on a busy machine, too.
def test_initializer_that_never_returns(run: Run) -> None:
    code, _, err = run(
        "import time\nfrom taskfarm import Farm\n"
        "with Farm(initializer=time.sleep, initargs=(3600,)) as farm:\n    farm.submit(abs, 1).result()\n",
        3,
        options=["--start-limit", "15"],
    )
    assert code != 0
    assert "WorkerLost: all workers are lost, the last rank" in err
    assert "not ready after" in err


def test_initializer_that_never_returns_on_one_worker(run: Run) -> None:
    _, out, err = run(
        """
import os, time
from taskfarm import Farm
def begin():
    if "2" in (os.environ.get("PMI_RANK"), os.environ.get("OMPI_COMM_WORLD_RANK")):
        time.sleep(3600)
def work(x):
    time.sleep(0.01)
    return x
with Farm(initializer=begin) as farm:
    print(sum(farm.map(work, range(1000))))
""",
        4,
        options=["--start-limit", "15"],
    )
    assert out.strip() == "499500", err
    assert "lost 1 of 3 workers: rank 2" in err


def test_exception_in_a_callback(run: Run) -> None:
    code, out, err = run(
        """
from taskfarm import Farm
with Farm() as farm:
    future = farm.submit(abs, -1)
    future.add_done_callback(lambda future: 1 / 0)
    print(future.result(), sum(farm.map(abs, range(100))))
""",
        3,
    )
    assert code == 0, err
    assert out == "1 4950\n"
    assert "ZeroDivisionError" in err


def test_standard_output_is_closed(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from taskfarm import Farm\n"
        "with Farm() as farm:\n"
        "    for x in farm.map(abs, range(300_000)):\n        print(x, 'of many lines')\n"
    )
    job = Job(python, ["-m", "taskfarm", "run", "-n", "3", "job.py"], tmp_path)
    assert job.process.stdout is not None
    job.process.stdout.readline()
    job.process.stdout.close()
    job.process.stdout = None
    job.end()


def test_worker_that_is_stopped_for_a_while_is_only_slow(start: Start, tmp_path: Path) -> None:
    job = start(SLOW, 4)
    job.wait_for(tmp_path / "started")
    (stopped,) = [pid for pid in map(int, os.listdir(job.pids)) if rank_of(pid) == 2]
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(stopped, signal.SIGCONT)
    code, out, err = job.end()
    assert code == 0, err
    assert out == "124750\n"
    assert "lost" not in err


def test_worker_that_is_stopped_for_too_long_is_given_up(start: Start, tmp_path: Path) -> None:
    job = start(SLOW, 4, options=["--lost-after", "2"])
    job.wait_for(tmp_path / "started")
    (stopped,) = [pid for pid in map(int, os.listdir(job.pids)) if rank_of(pid) == 2]
    os.kill(stopped, signal.SIGSTOP)
    try:
        _, out, err = job.end()
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert out == "124750\n", err
    assert "lost 1 of 3 workers: rank 2" in err
    assert "silent for" in err


def test_interrupted_twice(start: Start, tmp_path: Path) -> None:
    job = start(
        "import time\nfrom taskfarm import Farm\nfarm = Farm()\n"
        "futures = [farm.submit(time.sleep, 3600) for _ in range(9)]\n"
        "time.sleep(0.3)\nopen('started', 'w').close()\nfutures[0].result()\n",
        4,
    )
    job.wait_for(tmp_path / "started")
    job.process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    if job.process.poll() is None:
        job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    # MPICH's mpiexec loses the exit code if its own process on the host fails at the second Ctrl-C.
    assert code != 0 or "assert (!closed) failed" in err
    assert "Traceback" not in err


ENDLESS_STORM = """
import random, signal, threading, time
from taskfarm import Farm

def interrupt():
    while True:
        time.sleep(0.004 * random.random())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

farm = Farm()
futures = [farm.submit(time.sleep, 3600) for _ in range(9)]
time.sleep(0.2)
threading.Thread(target=interrupt, daemon=True).start()
futures[0].result()
"""


def test_interrupted_again_and_again(run: Run) -> None:
    """Whatever rank 0 does at the end, an interruption there leaves no rank behind."""
    code, _, err = run(ENDLESS_STORM, 3, options=["--journal", "run.db"])
    assert code == 130
    assert "Traceback" not in err


def test_job_that_takes_the_drain_for_its_own_interruption(start: Start, tmp_path: Path) -> None:
    job = start(
        """
import time
from taskfarm import Farm
def work(x):
    time.sleep(0.05)
    return x
with Farm() as farm:
    try:
        for x in farm.map(work, range(10_000)):
            if x == 5:
                open("started", "w").close()
    except KeyboardInterrupt:
        print("what is there so far")
""",
        3,
    )
    job.wait_for(tmp_path / "started")
    job.process.send_signal(signal.SIGUSR1)
    code, out, err = job.end()
    assert code == 75, err
    assert out == "what is there so far\n"
    assert "taskfarm: SIGUSR1: " in err


def test_rank_0_in_the_middle_of_nothing(start: Start, tmp_path: Path) -> None:
    """A walltime ends a job that sleeps, too."""
    job = start(
        "import time\nopen('started', 'w').close()\ntime.sleep(3600)\n",
        3,
        options=["--walltime", "2s", "--grace", "0.5"],
    )
    code, _, err = job.end()
    assert code == 75, err
    assert "the walltime: 0 of 0 tasks are done" in err


def test_child_processes_do_not_outlive_a_killed_job(start: Start, tmp_path: Path) -> None:
    job = start(
        "import time\nfrom taskfarm import Farm, task\n"
        "with Farm() as farm:\n"
        "    futures = [farm.submit(task(isolate=True)(time.sleep), 3600) for _ in range(3)]\n"
        "    time.sleep(1)\n    open('started', 'w').close()\n    futures[0].result()\n",
        4,
    )
    job.wait_for(tmp_path / "started")
    (rank_0,) = [pid for pid in map(int, os.listdir(job.pids)) if rank_of(pid) == 0]
    os.kill(rank_0, signal.SIGKILL)
    code, _, _ = job.end()
    assert code != 0


def test_full_disk_ends_the_run_with_a_line(python: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        (tmp_path / "job.py").write_text(
            "from taskfarm import Farm\nwith Farm() as farm:\n"
            "    print(sum(map(len, farm.map(str.zfill, map(str, range(1_000_000)), [40] * 1_000_000))))\n"
        )
        words = ["-m", "taskfarm", "run", "-n", "3", "--journal", "disk/run.db", "job.py"]
        code, out, err = Job(python, words, tmp_path).end()
        assert code == 1
        assert out == ""
        assert "Traceback" not in err
        assert err.count("taskfarm: ") == 1, err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
