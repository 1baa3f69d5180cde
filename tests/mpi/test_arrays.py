"""`reduce`, `map_array` and `over` on ranks: the same bits for any number, after kills, and into a file."""

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

COMMON = """
import operator, os, random, sys, time
import numpy as np
from taskfarm import Farm, current, rng, task

@task(retries=1)
def wild(n):
    if n % 1000 == 7 and current().attempt == 1:
        raise ValueError(n)
    generator = random.Random(n)
    return generator.uniform(-1, 1) * 10.0 ** generator.randint(-12, 12)

@task
def noisy(block, plus=0.0):
    return block * 2 + rng().random(block.shape) + plus

@task
def product(x, y):
    return x * y
"""

SAME = (
    COMMON
    + """
if __name__ == "__main__":
    print(wild.reduce(operator.add, range(20_000)).hex())
    print(wild.reduce(operator.add, range(300), chunksize=7, initial=1.0).hex())
    image = np.arange(400_000.0).reshape(1000, 400)
    out = np.memmap(sys.argv[1], float, "w+", shape=image.shape)
    assert noisy.map_array(image, out=out, plus=1.0) is out
    assert np.array_equal(noisy.map_array(image, axis=1, rows=33) // 2, image)
    print(float(out.sum()).hex(), noisy.map_array(image, rows=300).shape)
    table = product.over(np.arange(300.0)[:, None], np.arange(200.0))
    assert np.array_equal(table, np.arange(300.0)[:, None] * np.arange(200.0))
    large = Farm().reduce(lambda n: np.full(300_000, float(n)), np.add, range(64))
    print(large.shape, large[0], large[-1])
    held = Farm().reduce(lambda n: np.full(2_100_000, 0.1 * n), np.add, range(10))
    print(held.shape, float(held[0]).hex(), float(held[-1]).hex())
"""
)


def test_the_same_for_any_number_of_ranks(run: Run, tmp_path: Path) -> None:
    printed = set()
    for ranks in (1, 2, 3, 8):
        code, out, err = run(SAME, ranks, str(tmp_path / "out"), options=["--seed", "3"])
        assert code == 0, err
        printed.add(out)
    assert len(printed) == 1
    assert "(300000,) 2016.0 2016.0" in printed.pop()


KILLED = (
    COMMON
    + """
@task
def slow(n):
    time.sleep(0.002)
    return n * 0.1

if __name__ == "__main__":
    image = np.arange(40_000.0).reshape(200, 200)
    found = noisy.map_array(image, rows=3)
    open("started", "w").close()
    print(slow.reduce(operator.add, range(1500)).hex(), float(found.sum()).hex())
"""
)


def test_after_kill_and_resume(start: Start, run: Run, tmp_path: Path) -> None:
    code, expected, err = run(KILLED, 2, options=["--seed", "3"])
    assert code == 0, err
    (tmp_path / "started").unlink()
    kept = ["--seed", "3", "--journal", "run.db", "--resume"]
    for ranks in (3, 4):
        job = start(KILLED, ranks, options=kept)
        job.wait_for(tmp_path / "started")
        # The second run may have little left to do, and come to its end.
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.process.wait(0.7)
        job.process.send_signal(signal.SIGKILL)
        job.end()
        (tmp_path / "started").unlink()
    code, out, err = run(KILLED, 3, options=kept)
    assert (code, out) == (0, expected), err
    restored = int(err.partition(" results came from")[0].split()[-1].replace(",", ""))
    assert restored > 67 + 200
    code, out, err = run(KILLED, 2, options=kept)
    assert (code, out) == (0, expected), err
    assert "1,567 results came from run.db" in err


LOST = (
    COMMON
    + """
@task
def dies(n):
    if current().rank == 2 and n > 100:
        os.kill(os.getpid(), 9)
    return f"{n},"

@task
def large_dies(n):
    if current().rank == 3 and n > 8:
        os.kill(os.getpid(), 9)
    return np.full(2_100_000, 0.1 * n)

@task
def block_dies(block):
    if current().rank == 1 and current().rows.start > 50:
        os.kill(os.getpid(), 9)
    return block + 1

if __name__ == "__main__":
    assert dies.reduce(operator.add, range(3000)) == "".join(f"{n}," for n in range(3000))
    image = np.arange(4_000_000.0).reshape(200, 20_000)
    assert np.array_equal(block_dies.map_array(image, rows=2), image + 1)
    assert large_dies.reduce(np.add, range(20))[0] == sum(0.1 * n for n in range(20))
    print("all there")
"""
)


@pytest.mark.usefixtures("survives")
def test_lost_ranks_cost_nothing(run: Run) -> None:
    code, out, err = run(LOST, 5, options=["--survive"])
    assert (code, out) == (0, "all there\n"), err


ERRORS = (
    COMMON
    + """
@task
def short(block):
    return block[1:] if current().rows.start == 64 else block

@task(isolate=True)
def alone(n):
    return n

if __name__ == "__main__":
    image = np.zeros((1000, 50))
    for wrong in (lambda: short.map_array(image, rows=64), lambda: wild.reduce(operator.add, [])):
        try:
            wrong()
        except (ValueError, TypeError) as error:
            print(type(error).__name__, " ".join(str(error).split()[:3]))
    print(alone.reduce(operator.add, range(20)), product.over(3.0, 4.0))
"""
)


def test_errors_and_child_processes(run: Run) -> None:
    code, out, err = run(ERRORS, 3)
    assert code == 0, err
    assert out == "ValueError rows 64:128 came\nTypeError reduce() of empty\n190 12.0\n"


FLAT = """
import numpy as np
from taskfarm import task

class Made:
    shape, dtype = (2500, 50_000), np.dtype(float)
    def __getitem__(self, index):
        start, stop = index[0].start, index[0].stop
        return np.full((stop - start, 50_000), float(start))

class Summed:
    total = rows = 0
    def __setitem__(self, index, block):
        self.rows += len(block)
        self.total += block[:, 7].sum()

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("VmHWM"))

@task
def more(block):
    return block + 1

if __name__ == "__main__":
    more.map_array(np.zeros((8, 50_000)), rows=1)
    before, out = peak(), Summed()
    more.map_array(Made(), rows=1, out=out)
    print(out.rows, out.total, peak() - before < 600 or peak() - before)
"""


def test_rank_0_holds_a_part_of_what_passes_through(run: Run) -> None:
    code, out, err = run(FLAT, 3)
    assert (code, out) == (0, "2500 3126250.0 True\n"), err
