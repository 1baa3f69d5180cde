"""Options that say when a task starts, where, and how long it may take, over the fake transport."""

from collections.abc import Callable
from typing import Any

import pytest

import taskfarm
from taskfarm import Farm, task, testing
from taskfarm.compat import Pool
from taskfarm.errors import DependencyFailed, TaskTooLong, UsageError, WorkerLost
from taskfarm.schedule.offers import parse_offer
from taskfarm.schedule.resources import Resources
from taskfarm.schedule.walltime import Walltime

RAN: list[Any] = []


@task
def note(x: Any) -> Any:
    RAN.append(x)
    return x


def tenth(x: float) -> float:
    return x / 10


def minutes(x: float) -> str:
    return f"{x}m"


@task
def units(x: int) -> Any:
    return taskfarm.current().units


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def test_a_higher_priority_is_sooner_in_submits_and_maps() -> None:
    high, low = note.options(priority=2.5), note.options(priority=-1)
    with testing.farm(workers=1) as farm:
        futures = [
            one.submit(name) for one, name in ((note, "first"), (low, "low"), (note, "a"), (high, "high"))
        ]
        futures.append(note.submit("b"))
        results = [note.map("cd", priority=1), farm.map(note, "ef", priority=3), low.map("gh")]
        assert [list(one) for one in results] == [["c", "d"], ["e", "f"], ["g", "h"]]
        assert [future.result() for future in futures] == ["first", "low", "a", "high", "b"]
    assert RAN == ["first", "e", "f", "high", "c", "d", "a", "b", "low", "g", "h"]


def test_a_parameter_of_the_function_is_no_option_of_the_map() -> None:
    def power(x: int, order: int, priority: int = 0) -> int:
        return x**order + priority

    with testing.farm() as farm:
        assert list(task(power).map([1, 2], order=3, priority=1)) == [2, 9]
        with pytest.raises(TypeError, match="priority"):
            note.map([1], priority="high")
        with pytest.raises(ValueError, match="'submitted' or 'longest', not 'shortest'"):
            note.map([1], order="shortest")
        assert list(farm.map(abs, [-1, -2], priority=1)) == [1, 2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"priority": None}, "priority must be a number"),
        ({"priority": float("nan")}, "priority must be a number"),
        ({"needs": 3}, "needs must be a dict such as"),
        ({"needs": {"gpu": 0}}, "needs['gpu'] must be more than 0"),
        ({"needs": {"gpu": True}}, "needs['gpu'] must be a number"),
        ({"needs": {"gpu": "many"}}, "such as 20GB, not 'many'"),
        ({"needs": {"2 gpus": 1}}, "by words such as 'gpu'"),
        ({"expect": "soon"}, "expect must look like '10m'"),
        ({"expect": -1}, "expect must be a number of seconds"),
        ({"max_tasks": 0}, "max_tasks must be 1 or more"),
        ({"max_tasks": 1.5}, "max_tasks must be an integer"),
    ],
)
def test_wrong_values_are_refused_by_the_decorator(options: Any, complaint: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        task(**options)(abs)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("needs", "complaint"),
    [
        (
            "bigmem",
            "note needs bigmem=1, which no worker offers; offered: seat=2 in all, disk=100GB in all; add ",
        ),
        ({"seat": 3}, "note needs seat=3, which no worker offers"),
        ({"disk": "101GB"}, "note needs disk=101GB, which no worker offers"),
        (["seat", "gpu"], "note needs gpu=1, which no worker offers"),
    ],
)
def test_what_no_worker_can_meet_is_refused_at_once(needs: Any, complaint: str) -> None:
    lacking = note.options(needs=needs)
    uses: list[Callable[[Farm], object]] = [
        lambda farm: lacking.submit(1),
        lambda farm: lacking.map([1]),
        lambda farm: lacking.reduce(max, [1]),
        lambda farm: farm.starmap(lacking, [(1,)]),
    ]
    with testing.farm(resources=["seat=2/run", "disk=100GB/host"]) as farm:
        for use in uses:
            with pytest.raises(UsageError) as caught:
                use(farm)
            assert complaint in str(caught.value)
            assert "\n" not in str(caught.value)
        assert note.options(needs={"seat": 2, "disk": "60GB"}).submit("ran").result() == "ran"
    assert RAN == ["ran"]


def test_tasks_learn_their_units() -> None:
    with testing.farm(workers=3, resources=["port=3/host", "disk=9GB/host"]):
        needing = units.options(needs={"port": 2, "disk": "1GB"})
        found = [needing.submit(1).result(), *needing.map(range(20))]
        assert all(one["disk"] == () and len(set(one["port"])) == 2 for one in found)
        assert all(set(one["port"]) <= {0, 1, 2} for one in found)
        assert units.submit(1).result() == {}


def test_in_one_process_needs_are_met_unless_something_is_offered() -> None:
    with Farm():
        assert list(note.options(needs={"gpu": 8}, priority=1).map([1, 2])) == [1, 2]


def test_tasks_that_only_a_lost_worker_could_run_fail() -> None:
    with testing.farm(workers=3, faults=[testing.Dies(2, after=1)]) as farm:
        hosts = {1: "a", 2: "b", 3: "a"}
        offers = [parse_offer("bigmem=1@b"), parse_offer("seat=1/run")]
        farm._master.scheduler.resources = Resources(offers, hosts)
        big, seated = note.options(needs="bigmem"), note.options(needs="seat", retries=1)
        futures = [big.submit(number) for number in range(3)]
        others = seated.map(range(10))
        for future in futures:
            with pytest.raises(WorkerLost, match=r"note needs bigmem=1.*lost: bigmem=1 of worker 2"):
                future.result()
        assert list(others) == list(range(10)), "the seat is free again"
        with pytest.raises(WorkerLost):
            big.submit(1)


def test_a_failed_task_is_retried_on_the_only_worker_that_can_run_it() -> None:
    with testing.farm(workers=3) as farm:
        farm._master.scheduler.resources = Resources([parse_offer("big=1@b")], {1: "a", 2: "b", 3: "a"})
        assert fails_once.options(needs="big", retries=1).submit().result() == (2, 2)


@task
def fails_once() -> tuple[int, int]:
    now = taskfarm.current()
    if now.attempt == 1:
        raise OSError
    return now.attempt, now.rank


def test_the_longest_start_first_and_results_keep_their_order() -> None:
    longest = note.options(order="longest", expect=tenth)
    with testing.farm(workers=1):
        assert list(longest.map([3, 1, 2, 9, 5])) == [3, 1, 2, 9, 5]
        assert RAN == [9, 5, 3, 2, 1]
        assert sorted(longest.map(iter([2, 4, 3]), unordered=True)) == [2, 3, 4]
        assert RAN[5:] == [4, 3, 2]
        assert list(Pool().map(longest, [1, 7, 4])) == [1, 7, 4]
        assert RAN[8:] == [7, 4, 1]
        with pytest.warns(UserWarning, match="has no effect"):
            list(note.map([1, 2], order="longest"))


def test_random_numbers_do_not_depend_on_the_order() -> None:
    with testing.farm(seed=1) as farm:
        farm._farm.seed = 5
        plain = list(farm.map(draws, range(8)))
    with testing.farm(seed=2) as farm:
        farm._farm.seed = 5
        assert list(farm.map(draws, range(8), order="longest")) == plain


@task(expect=lambda x: x)
def draws(x: int) -> float:
    return float(taskfarm.rng().random())


def test_what_expect_raises_is_raised_where_the_tasks_are_submitted() -> None:
    wrong = note.options(expect=lambda x: 1 / x)
    with testing.farm():
        with pytest.raises(UsageError, match=r"the expect= of note raised ZeroDivisionError.*every call"):
            wrong.submit(0)
        with pytest.raises(UsageError, match="ZeroDivisionError"):
            list(wrong.map([1, 0]))


def test_a_task_longer_than_the_walltime_fails_in_one_line() -> None:
    with testing.farm() as farm:
        farm._master.scheduler.walltime = Walltime(100.0)
        too_long = note.options(expect="10m", on_error="return")
        assert note.options(expect="10s").submit("short").result() == "short"
        errors = [too_long.submit(1).result(), *too_long.map([1, 2])]
        assert [type(error) for error in errors] == [TaskTooLong] * 3
        assert "note is expected to take 10 min, but the walltime leaves tasks 100 s at most" in str(
            errors[0]
        )
        assert next(note.options(expect=minutes, on_error="return").map([1, 2])) == 1
    assert RAN == ["short", 1]


def test_tasks_that_wait_for_results_have_these_options_too() -> None:
    with testing.farm(resources=["seat=1/run"]) as farm:
        farm._master.scheduler.walltime = Walltime(100.0)
        dependent = note.options(priority=3, needs="seat").submit(note.options(expect="10m").submit(1))
        with pytest.raises(DependencyFailed):
            dependent.result()
        first = note.options(needs="seat").submit(2)
        second = note.options(needs="seat", order="longest").submit(first)
        assert note.options(priority=-1).submit(second).result() == 2
        farm._master.scheduler.check()
