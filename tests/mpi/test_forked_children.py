"""Processes that tasks and the job fork or spawn: they end on signals, and leave the farm alone."""

from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]

HELPER = "def cube(x):\n    return x**3\n"

FORKS = """
import logging, multiprocessing, os, signal, sys, time
import helper
from taskfarm import Farm, current, task

fork = multiprocessing.get_context("fork")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)

def stopped():
    codes = []
    for number in SIGNALS:
        child = fork.Process(target=time.sleep, args=(600,), daemon=True)
        child.start()
        os.kill(child.pid, number)
        child.join(10)
        codes.append(child.exitcode)
        child.kill()
    return codes

def own_handler():
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    child = fork.Process(target=time.sleep, args=(600,))
    child.start()
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGUSR1)
    child.join(10)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    return child.exitcode

def pool():
    with fork.Pool(2) as pool:
        return next(pool.imap_unordered(helper.cube, [2] * 100))

def says():
    print("in the child", current().rank > 0, end="")
    sys.stdout.flush()
    print(" by", file=sys.stderr)
    logging.warning("logged")

def printed():
    child = fork.Process(target=says)
    child.start()
    child.join(10)
    return child.exitcode

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def returns():
    return code_of(pid) if (pid := os.fork()) else "from the child"

def exits():
    return code_of(pid) if (pid := os.fork()) else sys.exit(5)

def fails():
    return code_of(pid) if (pid := os.fork()) else 1 / 0

def spawned():
    return [multiprocessing.get_context(kind).Pool(1).map(helper.cube, [3])
            for kind in ("spawn", "forkserver")]

TASKS = (stopped, own_handler, pool, printed, returns, exits, fails, spawned)

def square(x):
    return x * x

if __name__ == "__main__":
    with Farm() as farm:
        for isolate in (False, True):
            for function in TASKS:
                print(function.__name__, farm.submit(task(isolate=isolate)(function)).result(60))
        twice = [farm.submit(returns) for _ in range(6)]
        print([future.result(60) for future in twice], list(farm.map(square, range(4))))
        print("job", stopped(), pool())
        with multiprocessing.get_context("spawn").Pool(1) as started:
            print(started.map(square, [5]))
        late = farm.submit(time.sleep, 0.3)
        results = farm.map(square, range(1000))
        next(results)
        uses = (late.result, lambda: farm.submit(abs, 1), lambda: list(results), Farm)
        for use in (*uses, lambda: sys.exit(4)):
            if pid := os.fork():
                print(code_of(pid))
                continue
            try:
                use()
            except Exception as error:
                print(type(error).__name__, "was forked" in str(error), flush=True)
                sys.exit(3)
        print(late.result(), sum(results))
"""

IN_TASKS = """stopped [-15, 1, -10, -12, -3]
own_handler 7
pool 8
printed 0
returns 0
exits 5
fails 1
spawned [[27], [27]]
"""

IN_JOB = """[0, 0, 0, 0, 0, 0] [0, 1, 4, 9]
job [-15, 1, -10, -12, -3] 8
[25]
UsageError True
3
UsageError True
3
UsageError True
3
UsageError True
3
4
None 332833500
"""


def test_processes_that_tasks_and_the_job_fork(run: Run, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(HELPER)
    code, out, err = run(FORKS, 3, options=["--quiet"])
    assert code == 0, err
    lines = out.splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("[rank ")) == IN_TASKS + IN_TASKS + IN_JOB
    assert sum(line.endswith("] in the child True\n") for line in lines) == 2
    assert err.count("] WARNING:root:logged") == 2
    assert err.count("ZeroDivisionError") == 2
    assert "Drained" not in err


NESTED = """
import os, subprocess, sys
from taskfarm import Farm

SIZE = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
FARM = "from taskfarm import Farm; print(Farm().submit(pow, 2, 3).result())"

def start(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    return done.stdout.split() or done.stderr

def programs(mpiexec):
    alone = start(sys.executable, "-c", SIZE)
    return (alone, sorted("".join(start(mpiexec, "-n", "2", sys.executable, "-c", SIZE))),
            start(sys.executable, "-m", "taskfarm", "run", "-n", "2", "--quiet", "-c", FARM))

if __name__ == "__main__":
    mpiexec = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    with Farm() as farm:
        print(programs(mpiexec))
        print(farm.submit(programs, mpiexec).result())
"""


def test_programs_with_mpi_that_tasks_and_the_job_start(run: Run) -> None:
    code, out, err = run(NESTED, 2, options=["--quiet"])
    assert (code, out) == (0, "(['1'], ['2', '2'], ['8'])\n" * 2), err
