"""Tasks that submit tasks, under both MPIs: waits, returned futures, child processes, losses, a resume."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

HEAD = """
import os, time
import taskfarm
from taskfarm import Farm, as_completed, rng, task, wait
from taskfarm.errors import *

BASE = 1

class Cell:
    def __init__(self, value):
        self.value = value

@task
def fib(n):
    if n < 2:
        return n * BASE
    a, b = fib.submit(n - 1), fib.submit(n - 2)
    return a.result() + b.result()

@task
def cells(cell):
    if not cell.value:
        return cell
    return {"here": cell.value, "below": [cells.submit(Cell(cell.value - 1))]}

@task(isolate=True)
def isolated(n):
    if n < 2:
        return n
    a, b = isolated.submit(n - 1), fib.submit(n - 2)
    return a.result() + b.result()

@task
def sleep(seconds):
    time.sleep(seconds)
    return seconds

@task(timeout=1.0)
def patient(seconds):
    return sum(sleep.map([seconds] * 3))

@task
def draws(depth):
    number = float(rng().random())
    return [number, *[draws.submit(depth - 1) for _ in range(2 * (depth > 0))]]

def inner(x):
    return x * x + taskfarm.current().rank * 0

def outer(n):
    import joblib
    return sum(joblib.Parallel(n_jobs=4)(joblib.delayed(inner)(x) for x in range(n)))
"""


def test_all_ways_with_one_worker(run: Run) -> None:
    code, out, err = run(
        HEAD
        + """
if __name__ == "__main__":
    old = fib.submit(9)
    BASE = 2
    print(old.result(), fib.submit(5).result())
    found = cells.submit(Cell(2)).result()
    print(found["below"][0]["below"][0].value, type(found["below"][0]["below"][0]) is Cell)
    print(isolated.submit(4).result(), patient.submit(0.5).result())
    future = fib.submit(10)
    print(sum(fib.map([5, 6, 7])), future.result())
    try:
        import joblib, taskfarm.joblib_backend
    except ImportError:
        print("[0, 0, 1, 5, 14]")
    else:
        with joblib.parallel_config(backend="taskfarm"):
            print(joblib.Parallel(n_jobs=2)(joblib.delayed(outer)(n) for n in range(5)))
""",
        2,
    )
    assert code == 0, err
    assert out.splitlines() == ["34 10", "0 True", "5 1.5", "52 110", "[0, 0, 1, 5, 14]"], err


def test_a_resumed_run_restores_what_tasks_have_submitted(run: Run, tmp_path: Path) -> None:
    job = (
        HEAD
        + """
@task
def leaf(number):
    with open("ran", "a") as file:
        file.write(f"{number} ")
    return number, rng().random()

@task
def parent(number):
    got = [leaf.submit(10 * number + at) for at in range(3)]
    got = [future.result() for future in got]
    if number == 2 and not os.path.exists("second"):
        raise ValueError("first run")
    return got

if __name__ == "__main__":
    with Farm() as farm:
        futures = [parent.submit(number) for number in range(3)]
        print([future.exception() and "failed" or future.result() for future in futures])
"""
    )
    options = ["--journal", "j", "--seed", "3"]
    code, first, err = run(job, 3, options=options)
    assert code == 0, err
    assert "'failed'" in first
    (tmp_path / "second").touch()
    (tmp_path / "ran").unlink()
    code, second, err = run(job, 3, options=[*options, "--resume"])
    assert code == 0, err
    assert "failed" not in second
    assert not (tmp_path / "ran").exists(), "a leaf ran again"
    assert second.startswith(first.partition(", 'failed'")[0])


@pytest.mark.usefixtures("survives")
def test_workers_die_while_tasks_wait(run: Run) -> None:
    code, out, err = run(
        HEAD
        + """
@task
def deadly(n):
    if n < 2:
        if n == 1 and not os.path.exists("dead"):
            open("dead", "w").close()
            os.kill(os.getpid(), 9)
        return n
    a, b = deadly.submit(n - 1), deadly.submit(n - 2)
    return a.result() + b.result()

if __name__ == "__main__":
    print(deadly.submit(9).result(), [draws.submit(3).result() == draws.submit(3).result()])
""",
        4,
        options=["--survive"],
    )
    assert code == 0, err
    assert out.splitlines()[0] == "34 [False]", out + err
    assert "lost 1 of 3 workers" in err
