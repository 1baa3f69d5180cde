"""Workers that die, fall silent and come back, over the fake transport and in virtual time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import task, testing
from taskfarm.errors import InitializerFailed, WorkerLost
from taskfarm.schedule.heartbeats import IDLE_LIMIT

WORKED = 1000.0
"""In the place of a day, which takes long even in virtual time."""


def same(x: int) -> int:
    return x


def test_silent_worker_is_given_up_and_its_tasks_go_to_others() -> None:
    clock, fault = testing.VirtualClock(), testing.Silent(1)
    with testing.farm(workers=2, faults=[fault], clock=clock) as farm:
        farm._master.failure_detector.heartbeats.set_limits(30.0)
        assert sum(farm.map(same, range(100))) == 4950
        fault.silent = True
        futures = [farm.submit(same, x) for x in range(20)]
        before = clock.now()
        assert [future.result() for future in futures] == list(range(20))
        assert 30 <= clock.now() - before <= 50
        (loss,) = farm._master.workers.lost
        assert (loss.worker, loss.why[:10]) == (1, "silent for")
        counts = farm._master.scheduler.counts()
        fault.silent = False
        assert sum(farm.map(same, range(1000))) == 499500
        assert farm._master.scheduler.counts().done == counts.done + 1000, "a late word was counted"


@pytest.mark.parametrize(("isolate", "limit"), [(True, IDLE_LIMIT), (False, WORKED)])
def test_how_long_silence_is_borne_depends_on_who_may_hold_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, isolate: bool, limit: float
) -> None:
    monkeypatch.setattr("taskfarm.master.failure_detector.BUSY_LIMIT", WORKED)
    clock, fault = testing.VirtualClock(), testing.Silent(1)
    with testing.farm(workers=2, faults=[fault], clock=clock) as farm:
        called = task(isolate=isolate)(same)
        assert sum(farm.map(called, range(10))) == 45
        fault.silent = True
        futures = [farm.submit(called, x) for x in range(4)]
        before = clock.now()
        assert [future.result() for future in futures] == list(range(4))
        assert limit <= clock.now() - before <= limit + IDLE_LIMIT


def test_worker_that_is_slow_to_answer_is_not_lost() -> None:
    clock, fault = testing.VirtualClock(), testing.Silent(1)
    with testing.farm(workers=2, faults=[fault], clock=clock) as farm:
        farm._master.failure_detector.heartbeats.set_limits(120.0)
        assert sum(farm.map(same, range(100))) == 4950
        for _ in range(5):
            fault.silent = True
            farm._master.run_until(lambda: False, clock.now() + 60)
            fault.silent = False
            assert farm.submit(same, 7).result() == 7
        assert not farm._master.workers.lost


def test_worker_that_never_starts_does_not_hold_up_the_others() -> None:
    clock = testing.VirtualClock()
    with testing.farm(
        workers=2, faults=[testing.Stuck(1)], clock=clock, initializer=same, initargs=(1,)
    ) as farm:
        assert sum(farm.map(same, range(100))) == 4950
        farm._master.run_until(lambda: bool(farm._master.workers.lost), clock.now() + 2000)
        assert [loss.worker for loss in farm._master.workers.lost] == [1]


def test_no_worker_ever_starts() -> None:
    clock = testing.VirtualClock()
    faults = [testing.Stuck(1), testing.Stuck(2)]
    with testing.farm(workers=2, faults=faults, clock=clock, initializer=same, initargs=(1,)) as farm:
        with pytest.raises((WorkerLost, InitializerFailed)):
            farm.submit(same, 1).result()
        assert clock.now() < 1000


@given(
    seed=st.integers(0, 10**6), deaths=st.lists(st.integers(2, 60), max_size=4), retries=st.integers(0, 2)
)
@settings(deadline=None, max_examples=60)
def test_every_task_ends_once_whoever_dies(seed: int, deaths: list[int], retries: int) -> None:
    faults = [testing.Dies(worker, after) for worker, after in enumerate(deaths, 1)]
    with testing.farm(workers=5, seed=seed, faults=faults) as farm:
        farm._master.scheduler.attempts.max_kills = 99
        tried = task(retries=retries)(same)
        futures = [farm.submit(tried, x) for x in range(40)]
        results = list(farm.map(tried, range(300), unordered=True))
        assert sorted(results) == list(range(300))
        assert [future.result() for future in futures] == list(range(40))
        counts = farm._master.scheduler.counts()
        assert (counts.done, counts.total) == (340, 340)
