"""Signals, alarms and timers at any moment: between tasks, and while rank 0 is inside a call of C."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

ALARMS = """
import os, signal, subprocess, threading, time
from taskfarm import Farm, task

def late(*_):
    raise TimeoutError("too late")

def alarm(x):
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return x

def repeats(x):
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 3e-4, 3e-4)
    return x

def processor_time(x):
    for number, timer in ((signal.SIGPROF, signal.ITIMER_PROF), (signal.SIGVTALRM, signal.ITIMER_VIRTUAL)):
        signal.signal(number, late)
        signal.setitimer(timer, 0.01, 0.01)
    return x

def other(x):
    signal.signal(signal.SIGUSR1, late)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    return x

def child_ends(x):
    signal.signal(signal.SIGCHLD, late)
    subprocess.Popen(["sleep", "0.05"])
    return x

def in_time(x):
    before = signal.signal(signal.SIGALRM, late)
    assert signal.getsignal(signal.SIGALRM) is late
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        y = 0
        while True:
            print("", end="")
            y += 1
    except TimeoutError:
        return x
    finally:
        assert signal.signal(signal.SIGALRM, before) is late

def asleep(x):
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(60)

def begin():
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 2e-3, 2e-3)

def begin_slowly():
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(60)

def caught(x):
    try:
        time.sleep(5e-4)
    except TimeoutError:
        pass
    return x

if __name__ == "__main__":
    for isolate in (False, True):
        with Farm() as farm:
            for function in (alarm, repeats, processor_time, other, child_ends, in_time):
                print(function.__name__, *farm.map(task(isolate=isolate)(function), range(2)))
                time.sleep(0.2)
            print(type(farm.submit(task(isolate=isolate)(asleep), 0).exception(30)).__name__)
        with Farm(initializer=begin) as farm:
            results = list(farm.map(task(isolate=isolate, on_error="return")(caught), range(50)))
            print(len(results))
    try:
        with Farm(initializer=begin_slowly) as farm:
            farm.submit(abs, 1).result(30)
    except Exception as error:
        print(type(error).__name__)
"""

EACH = """alarm 0 1
repeats 0 1
processor_time 0 1
other 0 1
child_ends 0 1
in_time 0 1
TimeoutError
50
"""


def test_alarms_and_handlers_between_tasks(run: Run) -> None:
    code, out, err = run(ALARMS, 2, options=["--quiet"])
    assert (code, out) == (0, EACH * 2 + "InitializerFailed\n"), err
    for line in (
        "alarm left ITIMER_REAL running; it was switched off after the task",
        "processor_time left ITIMER_PROF running; it was switched off after the task",
        "the handler late of SIGUSR1 raised TimeoutError outside of its task",
    ):
        assert f"{line}\n" in err
    assert "taskfarm: rank 1 (" in err


IN_C = """
import ctypes, sys, time
from taskfarm import Farm
with Farm() as farm:
    done = [farm.submit(abs, x) for x in range(4)]
    [future.result() for future in done]
    open("started", "w").close()
    if sys.argv[1] == "waits":
        from mpi4py import MPI
        MPI.COMM_WORLD.Barrier()
    elif sys.argv[1] == "computes":
        sum(range(10**14))
"""


@pytest.mark.parametrize("how", ["waits", "computes"])
def test_rank_0_is_inside_a_call_of_c(start: Start, how: str) -> None:
    faster = "from taskfarm.launch import signals\nsignals.FORCE_AFTER = 1.0\nsignals.REACT_SECONDS = 0.2\n"
    options = ["--grace", "0", "--walltime", "3s", "--quiet"]
    job = start(IN_C, 2, how, options=options)
    (job.pids.parent / "hooks" / "at_start.py").write_text(faster)
    code, _, err = job.end()
    assert code != 0
    if how == "waits":
        assert code == 75
        assert "taskfarm: the walltime: 4 of 4 tasks are done" in err
    else:
        assert "taskfarm: the walltime: the job holds the interpreter in code of C" in err


@pytest.mark.usefixtures("survives")
def test_rank_that_dies_while_mpi_starts_and_ranks_may_die(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "at_start.py").write_text(
        "import os\nif os.environ.get('OMPI_COMM_WORLD_RANK') == '2':\n    os._exit(1)\n"
    )
    code, _, _ = run("print('ran')", 3, options=["--survive", "--start-limit", "3"])
    assert code != 0
