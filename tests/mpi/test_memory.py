"""Data for which a rank has no memory fails its own task, and says how large it is."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

JOB = """
import resource
import numpy as np
from taskfarm import Farm, task

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def leave(free):
    resource.setrlimit(resource.RLIMIT_AS, (held() + free, resource.RLIM_INFINITY))

@task
def length(x): return len(x)

@task(isolate=True)
def length_isolated(x): return len(x)

@task
def array(n): return np.ones(n, dtype="u1")

@task(isolate=True)
def array_isolated(n): return np.ones(n, dtype="u1")

@task
def many(n): return [bytes(10**6) for _ in range(n)]

@task
def fill(n):
    kept = []
    while True:
        kept.append(bytearray(n))

@task
def square(x): return x * x

def tell(what, future):
    try:
        future.result(50)
        print(what, "went well")
    except Exception as error:
        print(what, type(error).__name__, error)

if __name__ == "__main__":
    large, small = np.zeros(300_000_000, "u1"), np.zeros(1_000_000, "u1")
    pieces = [bytes(10**6) for _ in range(150)]
    with Farm(initializer=leave, initargs=(180_000_000,)):
        calls = {
            "large argument": length.submit(large),
            "large list": length.submit(pieces),
            "large argument, isolated": length_isolated.submit(large),
            "small argument": length.submit(small),
            "large list of results": many.submit(150),
            "no memory left": fill.submit(10_000_000),
            "no memory left at all": fill.submit(1000),
            "result of a child": array_isolated.submit(300_000_000),
        }
        for what, future in calls.items():
            tell(what, future)
        print(list(square.map(range(5))))
    with Farm(initializer=leave, initargs=(10**9,)):
        leave(90_000_000)
        tell("argument on rank 0", length.submit([bytes(10**6) for _ in range(80)]))
        tell("result on rank 0", array.submit(120_000_000))
        tell("another on rank 0", many.submit(60))
        print(list(square.map(range(5))))
"""


FAILS = {
    "large argument": "CallNotLoadable an argument cannot be unpickled on rank 1",
    "large list": "CallNotLoadable an argument cannot be unpickled on rank 1",
    "large argument, isolated": "CallNotLoadable an argument cannot be unpickled on rank 1",
    "large list of results": "MemoryError",
    "no memory left": "MemoryError",
    "no memory left at all": "MemoryError",
    "result of a child": "MemoryError Unable to allocate 286. MiB",
    "argument on rank 0": "CallNotPicklable an argument cannot be pickled: MemoryError: no memory",
    "result on rank 0": "ResultNotLoadable",
    "another on rank 0": "ResultNotLoadable",
}


def test_what_does_not_fit_fails_its_task(run: Run) -> None:
    code, out, err = run(JOB, 2, options=("--quiet",))
    assert code == 0, out + err
    for what, text in FAILS.items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{what} {text}")] or [out]
        assert line is not out, f"{what}: {out}"
        assert " MB" in line or text.startswith("MemoryError"), line
    assert "small argument went well" in out
    assert out.count("[0, 1, 4, 9, 16]") == 2, out
