"""The names of other libraries over real ranks, launched by taskfarm and by plain mpiexec."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]

LAUNCHED = """
from mpi4py import MPI
from taskfarm.compat import MPICommExecutor, MPIPool, MPIPoolExecutor, Pool

def square(x):
    return x * x

def remember(value):
    global memory
    memory = value

def recall(_):
    return memory

with Pool(2) as pool:
    seen = []
    results = [pool.apply_async(square, (x,), callback=seen.append) for x in range(100)]
    many = pool.map_async(square, range(10000), callback=lambda values: seen.append(sum(values)))
    lazy = pool.imap_unordered(square, range(1000))
    print(sum(pool.map(square, range(1000))), sum(lazy), many.get()[-1], results[7].get(60))
    pool.close()
    pool.join()
    print(len(seen), all(result.ready() for result in results))
with Pool(initializer=remember, initargs=(5,)) as pool:
    print(pool.map(recall, range(3)))
with MPIPoolExecutor(initializer=remember, initargs=(6,)) as executor:
    print(executor.num_workers, list(executor.map(recall, range(3))), executor.submit(square, 9).result())
with MPICommExecutor(MPI.COMM_WORLD, root=1) as executor:
    print(list(executor.starmap(pow, [(2, 3)])))
with MPIPool() as pool:
    if not pool.is_master():
        pool.wait()
        raise SystemExit(1)
    print(MPIPool.enabled(), pool.size, pool.map(square, range(3)))
# Never closed, and still running at the end.
Pool().map_async(square, range(1000))
MPIPoolExecutor().submit(square, 3)
"""


def test_launched(run: Run) -> None:
    code, out, err = run(LAUNCHED, 3)
    assert code == 0, err
    assert out.splitlines() == [
        "332833500 332833500 99980001 49", "101 True", "[5, 5, 5]", "2 [6, 6, 6] 81", "[8]",
        "True 2 [0, 1, 4]",
    ]  # fmt: skip


SPMD = """
import sys
from mpi4py import MPI
from taskfarm.compat import MPICommExecutor, MPIPool

rank = MPI.COMM_WORLD.rank
assert MPIPool.enabled()
for root in (0, 2):
    with MPICommExecutor(root=root, max_workers=9) as executor:
        if executor is not None:
            total = sum(executor.map(lambda x: x + root, range(1000)))
            print(rank, executor.num_workers, total, flush=True)
assert MPI.COMM_WORLD.allreduce(1) == 3
half = MPI.COMM_WORLD.Split(min(rank, 1))
with MPICommExecutor(half) as executor:
    executor.submit(abs, 1)  # ignored where it is None, as by the original

def fails(x):
    raise KeyError(x)

pool = MPIPool(MPI.COMM_WORLD)
if not pool.is_master():
    pool.wait()
    sys.exit(0)
try:
    pool.map(fails, [1])
except KeyError:
    print(pool.size, pool.map(abs, range(-3, 0)))
if len(sys.argv) > 1:
    sys.exit("never closed")
pool.close()
"""


@pytest.mark.parametrize("words", [[], ["unclosed"]])
def test_plain_mpiexec(python: Path, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "spmd.py").write_text(SPMD)
    mpiexec = str(python.with_name("mpiexec"))
    job = Job(Path("/usr/bin/env"), [mpiexec, "-n", "3", str(python), "spmd.py", *words], tmp_path)
    code, out, err = job.end()
    assert bool(code) == bool(words), err
    assert "Traceback" not in err
    assert sorted(out.splitlines()) == ["0 2 499500", "2 2 501500", "2 [3, 2, 1]"]
