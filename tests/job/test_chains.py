"""Chains of short tasks, which are sent together: every task gets what it would get by itself."""

from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taskfarm
from taskfarm import Farm, task, testing
from taskfarm.errors import DependencyFailed, ResultNotPicklable
from taskfarm.master.recorders import Recorder
from taskfarm.schedule.spans import Span


class Batches(Recorder):
    """Counts the batches, and the tasks in them."""

    def __init__(self, farm: Farm) -> None:
        self.batches = self.tasks = 0
        self._events = farm._master.outstanding.events
        self._events.add(self)

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Count a batch."""
        self.batches += 1
        self.tasks += sum(span.count for span in spans)

    @property
    def mean(self) -> float:
        """Tasks in a batch, so far."""
        self._events.flush()
        return self.tasks / max(1, self.batches)


def measured(farm: Farm, *functions: Any, arguments: Any = (0, 0)) -> None:
    """Let the farm know that tasks of these functions are short."""
    for count in (1, 8):
        for function in functions:
            taskfarm.wait([farm.submit(function, *arguments) for _ in range(count)])


def append(values: Any, number: int) -> list[int]:
    """Append to the list that is given, in place."""
    values = values or []
    values.append(number)
    return values  # type: ignore[no-any-return]


def double(values: Any, number: int) -> list[int]:
    """As `append`, but not the same function."""
    return append(append(values, number), -number)


def raise_by_one(array: Any, number: int) -> Any:
    """Change an array in place, and return it."""
    if number == 0:
        return np.zeros(6_000)
    array += number
    return array


class Counter:
    """Has an unusual way to be pickled."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def __reduce__(self) -> tuple[Any, ...]:
        return Counter, (self.count + 100,)


def touch(counter: Any, number: int) -> Counter:
    """A counter that counts how often it was pickled, and the calls."""
    counter = counter or Counter()
    counter.count += 1
    return counter  # type: ignore[no-any-return]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_task_gets_a_copy_of_its_own(workers: int) -> None:
    with testing.farm(workers) as farm:
        measured(farm, append, double, raise_by_one)
        batches = Batches(farm)
        lists, arrays = [farm.submit(append, None, 0)], [farm.submit(raise_by_one, None, 0)]
        for number in range(1, 120):
            lists.append(farm.submit(double if number % 7 == 3 else append, lists[-1], number))
            arrays.append(farm.submit(raise_by_one, arrays[-1], number))
        expected: list[int] = []
        for number, future in enumerate(lists):
            expected += [number, -number] if number % 7 == 3 else [number]
            assert future.result() == expected
        for number, array in enumerate(arrays):
            assert set(array.result()) == {float(sum(range(number + 1)))}
        assert batches.mean > 4
        farm._master.scheduler.check()


def test_what_is_needed_is_pickled_once_as_by_way_of_rank_0() -> None:
    found = []
    for chained in (True, False):
        with testing.farm(2) as farm:
            if chained:
                measured(farm, touch)
            batches = Batches(farm)
            futures = [farm.submit(touch, None, 0)]
            for number in range(1, 30):
                futures.append(farm.submit(touch, futures[-1], number))
                if not chained:
                    taskfarm.wait(futures)
            found.append([future.result().count for future in futures])
            assert (batches.mean > 3) == chained
    assert found[0] == found[1] == [101 * number for number in range(1, 31)]


def fails_at(value: Any, number: int) -> int:
    """Fail at 50, once or for ever."""
    if number in (50, -50) and (number > 0 or taskfarm.current().attempt == 1):
        raise ValueError(number)
    return (value or 0) + abs(number)


def chain(farm: Farm, functions: dict[int, Any], usual: Any, length: int = 100) -> list[Any]:
    """A chain of calls of a function, with others at some places."""
    futures = [farm.submit(usual, None, 0)]
    for number in range(1, length):
        futures.append(farm.submit(functions.get(number, usual), futures[-1], number))
    return futures


def add(value: Any, number: int) -> Any:
    """Add, if that is possible."""
    return value + number if isinstance(value, int) else number


unpicklable_result = task(lambda value, number: (item for item in (value, number)))


def from_future(value: int, number: int) -> Any:
    """Return a future."""
    return task(add).submit(value, number)


def from_child(value: int, number: int) -> Any:
    """Wait for a task."""
    return task(add).submit(value, number).result()


class NotThere:
    """A callable that no worker can load."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _not_there, ()

    def __call__(self, value: int, number: int) -> int:
        return number


def _not_there() -> None:
    if taskfarm.worker.context.IN_TASK.get():
        raise ImportError("no such module here")


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_in_a_chain_are_as_without_it(workers: int) -> None:
    with testing.farm(workers) as farm:
        measured(farm, add)
        batches = Batches(farm)
        broken = chain(farm, {}, fails_at)
        measured(farm, fails_at, arguments=(0, 0))
        again = chain(farm, {}, fails_at)
        for futures in (broken, again):
            assert [future.result() for future in futures[:50]] == [sum(range(n + 1)) for n in range(50)]
            assert isinstance(futures[50].exception(), ValueError)
            for place, future in enumerate(futures[51:], 2):
                error = future.exception()
                assert isinstance(error, DependencyFailed)
                assert len(error.path) == place
                assert isinstance(error.__cause__, ValueError)
        assert batches.mean > 4
        counts = farm._master.scheduler.counts()
        assert (counts.failed, counts.not_run, counts.waiting, counts.assigned) == (2, 98, 0, 0)


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        (task(from_future), 4950),
        (task(from_child), 4950),
        (task(fails_at, on_error="return"), 4950 - 50 - 1225),
        (task(fails_at, on_error=lambda error: 7), 4950 - 50 - 1225 + 7),
        (task(add, isolate=True), 4950),
        (task(add, keep=True), 4950),
        (task(add, priority=1), 4950),
        (task(add, retries=3), 4950),
    ],
)
def test_other_tasks_may_stand_in_a_chain(special: Any, expected: int) -> None:
    with testing.farm(2) as farm:
        measured(farm, add)
        assert chain(farm, {50: special}, add)[-1].result() == expected
        assert chain(farm, {50: special, 51: special, 70: special}, add)[-1].result() is not None
        farm._master.scheduler.check()


def test_retries_in_a_chain_get_what_they_need() -> None:
    with testing.farm(3) as farm:
        flaky = task(flaky_at, retries=2)
        measured(farm, add, flaky)
        futures = chain(farm, dict.fromkeys(range(5, 90, 9), flaky), add)
        assert futures[-1].result() == 4950
        assert farm._master.scheduler.counts().retried == 10


def flaky_at(value: int, number: int) -> int:
    """Fail twice."""
    if number and taskfarm.current().attempt < 2:
        raise OSError(number)
    return value + number


def test_results_and_functions_that_cannot_travel() -> None:
    with testing.farm(2) as farm:
        measured(farm, add)
        for special, kind in ((unpicklable_result, ResultNotPicklable), (NotThere(), ImportError)):
            futures = chain(farm, {20: special}, add, 40)
            assert futures[19].result() == 190
            assert isinstance(futures[20].exception(), kind)
            assert all(isinstance(future.exception(), DependencyFailed) for future in futures[21:])


def test_what_of_a_chain_is_not_sent_can_be_cancelled() -> None:
    with testing.farm(1) as farm:
        measured(farm, add)
        futures = chain(farm, {}, add, 300)
        counts = farm._master.scheduler.counts
        for _ in range(20):
            if counts().assigned < 10:
                farm._master.run_once()
        assert counts().assigned >= 10
        running = [place for place, future in enumerate(futures) if future.running()]
        assert len(running) == counts().assigned
        assert not futures[running[-1]].cancel()
        assert futures[running[-1] + 1].cancel()
        farm.shutdown(cancel_futures=True)
        assert counts().done + counts().cancelled == counts().total
        ended = [not future.cancelled() for future in futures]
        assert ended == sorted(ended, reverse=True)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    workers=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    deaths=st.lists(st.tuples(st.integers(2, 4), st.integers(4, 12)), max_size=2),
)
def test_chains_that_cross_give_the_serial_result(
    seed: int, workers: int, lengths: list[int], deaths: list[tuple[int, int]]
) -> None:
    faults = [testing.Dies(rank, after) for rank, after in deaths if rank <= workers]
    with testing.farm(workers, seed=seed, faults=faults) as farm:
        measured(farm, append, arguments=(None, 0))
        found = crossing(farm, lengths, Random(seed))
        farm._master.scheduler.check()
        assert farm._master.scheduler.unfinished == 0
    assert found == crossing(Direct(), lengths, Random(seed))


class Direct:
    """Calls functions at once, in the order of submission."""

    value: Any = None
    error: Any = None

    def submit(self, function: Any, *arguments: Any) -> "Direct":
        """Call a function with copies of the results that it needs."""
        done = Direct()
        needed = [one for one in arguments if isinstance(one, Direct)]
        if any(one.error is not None for one in needed):
            done.error = DependencyFailed("", "", ())
            return done
        values = [deepcopy(one.value) if isinstance(one, Direct) else one for one in arguments]
        try:
            done.value = getattr(function, "__wrapped__", function)(*values)
        except ValueError as error:
            done.error = error
        return done

    def exception(self) -> Any:
        """What it raised."""
        return self.error

    def result(self) -> Any:
        """What it returned."""
        return self.value


def crossing(farm: Any, lengths: list[int], chance: Random) -> list[Any]:
    """Chains of which some tasks need results of two, some fail, and some are retried."""
    fragile, retried = task(merge), task(merge, retries=1)
    ends = [farm.submit(append, None, number) for number in range(len(lengths))]
    futures = list(ends)
    for number in range(max(lengths)):
        for at, length in enumerate(lengths):
            if number >= length:
                continue
            if chance.random() < 0.2:
                other = chance.choice(futures)
                kind = retried if chance.random() < 0.5 else fragile
                ends[at] = farm.submit(kind, ends[at], other, number, chance.random() < 0.05)
            else:
                ends[at] = farm.submit(append, ends[at], number)
            futures.append(ends[at])
    return [type(error) if (error := future.exception()) else future.result() for future in futures]


def merge(one: list[int], other: list[int], number: int, fails: bool) -> list[int]:
    """Join two lists in place."""
    if fails:
        raise ValueError(number)
    one += other[-3:]
    one.append(number)
    return one
