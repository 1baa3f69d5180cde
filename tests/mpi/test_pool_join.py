"""When `Pool.join` returns, every callback has returned."""

from collections.abc import Callable

JOB = """
import time
from taskfarm.compat import Pool

def square(x):
    return x * x

def slow(value):
    time.sleep(0.005)
    seen.append(value)

found = set()
for number in range(30):
    with Pool(2) as pool:
        seen = []
        results = [pool.apply_async(square, (x,), callback=slow) for x in range(5)]
        time.sleep(0.0005 * (number % 7))
        pool.close()
        pool.join()
        found.add((len(seen), all(result.ready() for result in results)))
print(found)
"""


def test_join_waits_for_the_callbacks(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(JOB, 3)
    assert (code, out) == (0, "{(5, True)}\n"), err
