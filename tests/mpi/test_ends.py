"""Every way in which a run ends: its exit code, what is printed, and that nothing is left."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

BUSY = """
import time
from taskfarm import Farm, task

def sleeps(seconds):
    time.sleep(seconds)
    return seconds

farm = Farm()
futures = [farm.submit(sleeps, 3600) for _ in range(10)]
"""


@pytest.mark.parametrize(
    ("ranks", "last", "expected"),
    [
        (4, "raise ValueError('the job is wrong')", 1),
        (1, "raise ValueError('the job is wrong')", 1),
        (4, "import sys; sys.exit(3)", 3),
        (4, "import sys; sys.exit('a word at the end')", 1),
        (1, "import sys; sys.exit('a word at the end')", 1),
        (4, "import sys; sys.exit()", 0),
        (1, "import sys; sys.exit(0)", 0),
        (4, "import sys; farm = Farm(); farm.submit(abs, -1); sys.exit(3)", 3),
        (4, "1 +", 1),
    ],
)
def test_exit_code_is_the_jobs(run: Run, ranks: int, last: str, expected: int) -> None:
    code, _, err = run(f"from taskfarm import Farm, task\n{last}\n", ranks)
    assert code == expected, err
    if "ValueError" in last:
        assert err.count("Traceback (most recent call last)") == 1
        assert err.count("ValueError: the job is wrong") == 1
        assert 'job.py", line 2, in <module>' in err
        assert "taskfarm/" not in err
    if "word" in last:
        assert err.count("a word at the end") == 1


@pytest.mark.parametrize(
    ("last", "expected"),
    [("raise ValueError('the job is wrong')", 1), ("import sys; sys.exit(3)", 3)],
)
def test_ends_within_seconds_though_workers_are_busy(run: Run, last: str, expected: int) -> None:
    code, _, err = run(BUSY + last, 4)
    assert code == expected, err
    assert err.count("Traceback") == (1 if expected == 1 else 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "last", ["futures[0].result()", "list(farm.map(sleeps, [3600] * 9))", "time.sleep(3600)"]
)
def test_interrupt(start: Start, tmp_path: Path, number: signal.Signals, last: str) -> None:
    text = BUSY + f"time.sleep(0.3)\nopen('started', 'w').close()\n{last}\n"
    job = start(text, 4, options=["--grace", "1"])
    job.wait_for(tmp_path / "started")
    job.process.send_signal(number)
    code, _, err = job.end()
    assert code != 0
    # Open MPI's mpiexec makes SIGTERM of both, and has lost its own standard error when it was terminated.
    lines = err.count("taskfarm: Ctrl-C: ") + err.count("taskfarm: SIGTERM: ")
    least = 1 if number == signal.SIGINT else 0
    assert least <= lines <= 1, err
    assert "Traceback" not in err


def test_interrupt_of_a_serial_job(start: Start, tmp_path: Path) -> None:
    job = start(BUSY.replace("futures", "open('started', 'w').close(); futures"), 1)
    job.wait_for(tmp_path / "started")
    job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    assert code != 0
    assert err.count("taskfarm: Ctrl-C: ") + err.count("taskfarm: SIGTERM: ") == 1, err
    assert "Traceback" not in err


@pytest.mark.parametrize("last", ["os._exit(5)", "os.kill(os.getpid(), 9)"])
def test_rank_0_dies(run: Run, last: str) -> None:
    code, _, _ = run(f"import os\n{BUSY}{last}\n", 4)
    assert code != 0


@pytest.mark.parametrize("how", ["os._exit(5)", "os.kill(os.getpid(), 9)"])
def test_a_worker_dies(run: Run, how: str) -> None:
    # Neither MPI survives it as it is started here: what counts is that nothing hangs or stays.
    lines = f"def dies():\n    import os\n    {how}\nfarm.submit(dies)\n"
    code, _, _ = run(f"from taskfarm import Farm\nfarm = Farm()\n{lines}", 4)
    assert code != 0


def test_initializer_fails(run: Run) -> None:
    code, out, err = run(
        """
from taskfarm import Farm
from taskfarm.errors import InitializerFailed

def broken(word):
    raise RuntimeError(f"cannot {word}")

with Farm(initializer=broken, initargs=("begin",)) as farm:
    try:
        futures = [farm.submit(abs, -1) for _ in range(10)]
        error = futures[0].exception(timeout=240)
    except InitializerFailed as refused:
        error = refused
    print(type(error).__name__, str(error).count("cannot begin"))
    try:
        farm.submit(abs, -1)
    except InitializerFailed:
        print("refused")
with Farm() as farm:
    print(farm.submit(abs, -2).result(timeout=240))
""",
        4,
    )
    assert code == 0, err
    assert out.split("\n")[:3] == ["InitializerFailed 1", "refused", "2"], out


def test_farm_left_open_finishes(run: Run) -> None:
    code, _, err = run(
        """
from taskfarm import Farm

def note(x):
    with open(f"note{x}", "w"):
        pass

farm = Farm()
for i in range(5):
    farm.submit(note, i)
farm.map(note, range(5, 9))
""",
        3,
    )
    assert code == 0, err


def test_wrong_ranks_of_mpi(tmp_path: Path) -> None:
    from .conftest import PYTHONS

    if not all(path.exists() for path in PYTHONS.values()):
        pytest.skip("both environments are needed: run scripts/setup")
    (tmp_path / "job.py").write_text("print('ran')")
    mpiexec = str(PYTHONS["mpich"].with_name("mpiexec"))
    job = Job(
        Path("/usr/bin/env"),
        [mpiexec, "-n", "3", str(PYTHONS["openmpi"]), "-m", "taskfarm", "run", "job.py"],
        tmp_path,
    )
    code, out, err = job.end()
    assert code == 2, err
    assert "ran" not in out
    assert err.count("the launcher started 3 processes") == 1
    assert "python -m taskfarm run -n 3" in err
