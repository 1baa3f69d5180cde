"""A journal has no kept results: a run that resumes makes them again, and only if something needs them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from taskfarm import task
from taskfarm.job.farm import Farm, open_on
from taskfarm.journal.journal import Journal
from taskfarm.master.master import Master
from taskfarm.testing import FakeTransport, VirtualClock
from taskfarm.worker import kept_results
from taskfarm.worker.local import LocalTransport

CALLS: Counter[str] = Counter()


def load(number: int) -> list[int]:
    CALLS["load"] += 1
    return [number]


def scale(values: list[int], by: int) -> list[int]:
    CALLS["scale"] += 1
    return [by * value for value in values]


def total(values: list[int]) -> int:
    CALLS["total"] += 1
    return sum(values)


def job(
    path: Path, *, more: bool = False, transport: Any = None, keep: bool = True
) -> tuple[Any, dict[str, int]]:
    """What a run gives that resumes, and which calls it made."""
    CALLS.clear()
    master = Master(transport or FakeTransport(2), VirtualClock())
    journal = Journal(str(path), resume=True)
    master.outstanding.journal = journal
    master.functions.code_digest = lambda function, farm: function.__name__.encode()
    first, second = task(keep=keep)(load), task(keep=keep)(scale)
    try:
        with open_on(Farm, master) as farm:
            scaled = [farm.submit(second, farm.submit(first, number), 2) for number in range(3)]
            found: list[Any] = [farm.submit(total, one).result() for one in scaled]
            if more:
                found += [scaled[1].result(), farm.submit(max, scaled[2]).result()]
                found += list(farm.map(first, range(3)))
    finally:
        journal.close()
    return found, dict(CALLS)


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "KEEP_BYTES", 1)


def test_only_what_is_needed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    assert job(path) == ([0, 2, 4], {"load": 3, "scale": 3, "total": 3})
    assert job(path) == ([0, 2, 4], {})
    # A map hands its results to the job, and the journal has none of these.
    more = [0, 2, 4, [2], 4, [0], [1], [2]]
    found, calls = job(path, more=True)
    assert (found, calls["scale"], "total" in calls) == (more, 2, False)
    # With one rank, too; and without keep=, as if the journal did not have the tasks.
    found, calls = job(tmp_path / "other.db", more=True)
    assert found == more
    found, calls = job(tmp_path / "other.db", more=True, transport=LocalTransport())
    assert (found, calls["scale"]) == (more, 1)
    assert job(tmp_path / "other.db", keep=False)[0] == [0, 2, 4]
