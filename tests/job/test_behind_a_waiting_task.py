"""Calls behind a task that waits for its own tasks leave its worker, also if they were about to start."""

from typing import Any

import pytest

from taskfarm import current, task, testing

COUNT, WAITS = 400, 300

log: list[Any] = []


@task
def child(depth: int) -> int:
    return child.submit(depth - 1).result() + 1 if depth else 0


@task
def outer(number: int) -> tuple[int, int]:
    if number == WAITS:
        log.append("waits")
        assert sum(child.submit(3).result() for _ in range(30)) == 90
        log.append("has waited")
    log.append((number, current().rank))
    return number, current().attempt


@pytest.mark.parametrize("seed", range(3))
def test_they_do_not_wait(seed: int) -> None:
    log.clear()
    with testing.farm(workers=2, seed=seed) as farm:
        found = list(farm.map(outer, range(COUNT), chunksize=COUNT))
    assert found == [(number, 1) for number in range(COUNT)]
    assert sorted(entry[0] for entry in log if type(entry) is tuple) == list(range(COUNT)), "each once"
    began, ended = log.index("waits"), log.index("has waited")
    meanwhile = [entry for entry in log[began:ended] if type(entry) is tuple]
    assert [number for number, _ in meanwhile] == list(range(WAITS + 1, COUNT))
    first = next(rank for number, rank in log[:began] if number == 0)
    assert all(rank != first for _, rank in meanwhile), "their own worker runs only what it waits for"
