"""Tasks on several ranks that would not end in time do not start, and hold no workers."""

import pytest

from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.walltime import Walltime
from tests.schedule.test_gangs import VirtualFarm


def test_a_task_on_several_ranks_starts_only_if_it_should_end_in_time() -> None:
    farm = VirtualFarm([4], [Demand(0, (), 3.0), Demand(0, (), 6.0, ranks=4), Demand(0, (), 1.0)])
    farm.scheduler.walltime = Walltime(10.0)
    for _ in range(4):
        farm.at(0, "_submit", 0, [3.0])
    farm.at(0.1, "_submit", 1, [6.0])
    farm.at(0.2, "_submit", 1, [6.0])
    for _ in range(4):
        farm.at(9.0, "_submit", 2, [0.5])
    with pytest.raises(AssertionError, match="1 tasks never started"):
        farm.run()
    first, second = 4, 5
    assert farm.started[first] == pytest.approx(3.0, abs=0.1)
    assert second not in farm.started
    assert farm.scheduler.num_late(9.6) == 1
    assert not farm.scheduler.gangs.held_since
    assert farm.ended.keys() == {0, 1, 2, 3, 4, 6, 7, 8, 9}


def test_while_the_workers_agree_on_who_is_left_only_gangs_wait() -> None:
    farm = VirtualFarm([4], [Demand(), Demand(ranks=2)])
    gangs = farm.scheduler.gangs
    gangs.paused = "rank 3 was lost"
    farm.at(0, "_submit", 1, [1.0])
    farm.at(0.1, "_submit", 0, [0.5])
    farm.at(1, "explain", 0)
    with pytest.raises(AssertionError, match="1 tasks never started"):
        farm.run()
    assert farm.started.keys() == {1}
    assert farm.said == ["is queued: it needs 2 ranks at a time, and rank 3 was lost"]
    assert farm.scheduler.num_gangs == (0, 1, 0)
    gangs.paused = ""
    farm.run()
    assert farm.ended.keys() == {0, 1}
