"""Several farms at a time on real ranks: in threads, with child processes, and while ranks die."""

from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]

JOB = """
import os, signal, sys, threading, time
from taskfarm import Farm, as_completed, current, task
from taskfarm.compat import MPIPoolExecutor, Pool
from taskfarm.job.current_farm import registry

def square(x):
    return x * x

def remember(value):
    global memory
    memory = value

def recall(x):
    return memory

def fails(x):
    raise KeyError(x)

def pid():
    return os.getpid()

def use(k):
    for i in range(4):
        with Farm(initializer=remember, initargs=((k, i),)) as farm:
            assert set(farm.map(recall, range(30))) == {(k, i)}
        with Pool(2, remember, (k,)) as pool, MPIPoolExecutor(1) as executor:
            assert set(pool.imap_unordered(recall, range(40))) == {k}
            futures = [executor.submit(square, x) for x in range(20)]
            assert sum(future.result() for future in as_completed(futures)) == 2470
    done.append(k)
"""

ALL = """
done = []
threads = [threading.Thread(target=use, args=(k,)) for k in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(done))
farms = [Farm() for _ in range(200)]
futures = [farm.submit(square, k) for k, farm in enumerate(farms)]
print(all(future.result() == k * k for k, future in enumerate(futures)))
for farm in farms:
    farm.shutdown()
isolated = task(isolate=True)(recall)
with Farm(initializer=remember, initargs=("A",)) as a, Farm(initializer=remember, initargs=("B",)) as b:
    print(*({farm.submit(isolated, 0).result() for _ in "xyz"} for farm in (a, b, a)))
    with Farm(initializer=fails, initargs=(0,)) as broken:
        print(type(broken.submit(square, 1).exception()).__name__)
    with Farm(max_tasks_per_child=1) as fresh:
        print(len({fresh.submit(pid).result() for _ in "xyz"}))
    blocked = a.submit(time.sleep, 0.5)
    with Farm() as quick:
        print(quick.submit(square, 3).result(), blocked.done())
print(len(registry.master.farms))
"""


def test_threads_children_and_many(run: Run) -> None:
    code, out, err = run(JOB + ALL, 3)
    assert code == 0, err
    assert out.splitlines() == [
        *("[0, 1, 2, 3]", "True", "{'A'} {'B'} {'A'}", "InitializerFailed", "3", "9 False", "0"),
    ]


DIES = """
def dies(x):
    if not os.path.exists(f"died{x}"):
        open(f"died{x}", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return x

def slowly(x):
    time.sleep(1e-3)
    return memory

with Farm(initializer=remember, initargs=(1,)) as a, Farm(initializer=remember, initargs=(2,)) as b:
    with Farm(max_workers=1) as c, Pool(2) as pool:
        maps = [a.map(slowly, range(500)), b.map(slowly, range(500))]
        squares = pool.map_async(square, range(1000))
        deaths = [c.submit(dies, 0), a.submit(dies, 1)]
        print([set(results) for results in maps], sum(squares.get()), [f.result() for f in deaths])
        print(a.num_workers, c.num_workers)
"""


@pytest.mark.usefixtures("survives")
def test_ranks_that_die_cost_no_farm_anything(run: Run) -> None:
    code, out, err = run(JOB + DIES, 6, options=["--survive"])
    assert code == 0, err
    assert out.splitlines() == ["[{1}, {2}] 332833500 [0, 1]", "3 1"]
