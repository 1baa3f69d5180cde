"""Ranks of one host that sleep are woken: here no sleep ends by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

AT_START = """
from taskfarm.transport import waiting

waiting.MIN_DOORBELL_SLEEP = waiting.MASTER_DOORBELL_SLEEP = waiting.WORKER_DOORBELL_SLEEP = 1e5
"""

JOB = """
import sys, time
from taskfarm import Farm, share, task

@task
def later(x, seconds=0.0):
    time.sleep(seconds)
    return x

@task
def add(data, x):
    return data[0] + x

@task
def nested(x):
    return sum(future.result() for future in [later.submit(x, 0.02), later.submit(1)])

if __name__ == "__main__":
    with Farm() as farm:
        for pause in (0.0, 1e-3, 0.01, 0.05, 0.3):
            for _ in range(5):
                time.sleep(pause)
                assert farm.submit(later, 1, seconds=pause).result() == 1
        assert list(farm.map(later, range(100), [1e-3] * 100)) == list(range(100))
        assert list(farm.map(later, range(10), [0.02] * 10)) == list(range(10))
        data = share(bytes([7]) * 100_000)
        assert list(farm.map(add, [data] * 4, range(4))) == [7, 8, 9, 10]
        assert list(farm.map(nested, range(4))) == [1, 2, 3, 4]
        assert farm.submit(len, bytes(20_000_000)).result() == 20_000_000
        assert len(farm.submit(bytes, 20_000_000).result()) == 20_000_000
    print("done")
"""


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_rank_that_sleeps_is_rung(run: Run, tmp_path: Path, ranks: int) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "at_start.py").write_text(AT_START)
    code, out, err = run(JOB, ranks)
    assert (code, out) == (0, "done\n"), err
