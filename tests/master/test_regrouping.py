"""After a loss, tasks on several ranks wait until the workers that are left have agreed on who they are."""

from types import SimpleNamespace
from typing import Any

import pytest

from taskfarm.master.regrouping import LONGEST, QUIET_SECONDS, Regrouping
from taskfarm.protocol.messages import Regroup, Regrouped


class Workers:
    """Four workers, and what they were asked."""

    def __init__(self) -> None:
        self.ranks = {1, 2, 3, 4}
        self.gone: set[int] = set()
        self.asked: list[tuple[int, Any]] = []

    def send(self, worker: int, message: Any) -> None:
        self.asked.append((worker, message))

    def take_asked(self) -> list[tuple[int, Any]]:
        asked, self.asked = self.asked, []
        return asked


class Farm:
    """What an agreement needs of a farm."""

    def __init__(self) -> None:
        self.transport = SimpleNamespace(gangs=True, has_unreachable=False)
        self.gangs = SimpleNamespace(broken="", paused="")
        self.workers = Workers()
        self.regrouping = Regrouping(self.transport, self.gangs, self.workers)  # type: ignore[arg-type]

    def lose(self, worker: int, now: float, alive: bool = False) -> None:
        self.workers.gone.add(worker)
        self.regrouping.lose(worker, alive, now)


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_tasks_start_again_when_all_that_are_left_have_agreed(farm: Farm) -> None:
    farm.lose(2, 10.0)
    assert farm.gangs.paused == "the ranks agree on who is left after rank 2 was lost"
    farm.regrouping.check(10.0 + QUIET_SECONDS / 2)
    assert not farm.workers.asked
    farm.regrouping.check(11.0)
    assert farm.workers.take_asked() == [(1, Regroup(1)), (3, Regroup(1)), (4, Regroup(1))]
    farm.regrouping.handle(1, Regrouped(1, ""))
    # Another one dies: what was agreed on is out of date.
    farm.lose(3, 12.0)
    farm.regrouping.handle(4, Regrouped(1, ""))
    assert farm.gangs.paused
    farm.regrouping.check(13.0)
    assert farm.workers.take_asked() == [(1, Regroup(2)), (4, Regroup(2))]
    farm.regrouping.handle(4, Regrouped(2, ""))
    assert farm.gangs.paused
    assert not farm.regrouping.handle(1, Regrouped(2, ""))
    assert not farm.gangs.paused
    assert not farm.gangs.broken
    farm.regrouping.check(14.0 + LONGEST)
    assert not farm.workers.asked
    assert not farm.gangs.broken


def test_who_does_not_take_part_in_time_ends_all_waiting(farm: Farm) -> None:
    farm.lose(2, 10.0)
    farm.regrouping.check(11.0)
    farm.regrouping.handle(3, Regrouped(1, ""))
    assert not farm.regrouping.check(10.0 + LONGEST)
    assert farm.regrouping.check(11.0 + LONGEST)
    assert farm.gangs.broken == "after a loss, ranks 1, 4 did not take part in new groups within 120 s"
    assert not farm.gangs.paused


def test_an_error_of_mpi_ends_all_waiting(farm: Farm) -> None:
    farm.lose(2, 10.0)
    farm.regrouping.check(11.0)
    assert farm.regrouping.handle(3, Regrouped(1, "Exception: MPI_ERR_INTERN"))
    assert (
        "MPI makes no communicators after a rank was lost (Exception: MPI_ERR_INTERN)" in farm.gangs.broken
    )


def test_nobody_agrees_without_a_rank_that_may_still_be_running(farm: Farm) -> None:
    farm.transport.has_unreachable = True
    farm.lose(2, 10.0)
    assert farm.gangs.broken == "MPI makes no communicators after rank 2 was given up"
    farm.regrouping.check(11.0)
    assert not farm.workers.asked


@pytest.mark.parametrize("first", ["left", "lost"])
def test_a_rank_that_leaves_by_itself_takes_part_no_more(farm: Farm, first: str) -> None:
    if first == "left":
        farm.lose(1, 9.0, alive=True)
        assert not farm.gangs.broken
        assert not farm.gangs.paused
        farm.lose(2, 10.0)
    else:
        farm.lose(2, 10.0)
        farm.regrouping.check(11.0)
        farm.lose(1, 11.5, alive=True)
    assert farm.gangs.broken == "MPI makes no communicators after rank 1 has left"
