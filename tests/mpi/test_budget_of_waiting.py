"""The budget of a run whose tasks wait for others has all the time of its workers."""

import json
from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]

JOB = """
import time
from taskfarm import task

@task
def leaf(x):
    time.sleep(0.2)
    return x

@task
def parent(x):
    time.sleep(0.3)
    x = leaf.submit(leaf.submit(x)).result()
    time.sleep(0.3)
    return x

if __name__ == "__main__":
    print(parent.submit(leaf.submit(leaf.submit(3))).result())
"""


def test_the_budget_of_tasks_that_wait(run: Run) -> None:
    code, out, err = run(JOB, 3, options=["--summary", "json"])
    assert (code, out) == (0, "3\n"), err
    figures = json.loads(err.splitlines()[-1])
    parts = figures["budget_seconds"]
    total = figures["workers"] * figures["wall_seconds"]
    assert sum(parts.values()) == pytest.approx(total, rel=0.05)
    # All sleeps, and the other worker in all but the last two: no leaf is left then.
    assert parts["other_wait"] + parts["core_wait"] > 1.3
    assert parts["not_ready"] > 0.5
