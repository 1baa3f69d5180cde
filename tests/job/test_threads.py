"""Many threads at one farm: no result is lost, doubled or late, however the threads take turns."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskfarm import Farm, testing


@pytest.fixture(params=["serial", "ranks"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    """A farm in one process, or over the fake transport, whose threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Farm() if request.param == "serial" else testing.farm() as farm:
            yield farm
    finally:
        sys.setswitchinterval(before)


def listed(x: int) -> list[int]:
    return [x]


def in_threads(function: Callable[[int], object], count: int = 6) -> None:
    threads = [threading.Thread(target=function, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_threads_that_submit(farm: Farm) -> None:
    results: dict[int, Any] = {}

    def submit(number: int) -> None:
        # Functions that are new to the farm get a number each, too.
        functions = [lambda x, k=k: (number, k, x) for k in range(5)]
        futures = [farm.submit(functions[x % 5], x) for x in range(80)]
        results[number] = [future.result() for future in futures]

    in_threads(submit)
    assert results == {number: [(number, x % 5, x) for x in range(80)] for number in range(6)}


def test_threads_that_map(farm: Farm) -> None:
    results: dict[int, Any] = {}

    def run_map(number: int) -> None:
        results[number] = list(farm.map(listed if number % 2 else abs, (x for x in range(700))))

    in_threads(run_map)
    assert results == {number: [[x] if number % 2 else x for x in range(700)] for number in range(6)}


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("function", [abs, listed])
def test_one_map_in_many_threads(farm: Farm, function: Any, unordered: bool) -> None:
    for shared in (iter, lambda results: results):
        results: Iterator[Any] = farm.map(function, (x for x in range(2_000)), unordered=unordered)
        results = shared(results)
        seen: list[list[Any]] = []

        def consume(number: int, results: Iterator[Any] = results, seen: list[list[Any]] = seen) -> None:
            mine: list[Any] = []
            seen.append(mine)
            if number % 2:
                for result in results:
                    mine.append(result)
            else:
                while (result := next(results, None)) is not None:
                    mine.append(result)

        in_threads(consume, 5)
        assert sorted(result for mine in seen for result in mine) == list(map(function, range(2_000)))


def test_map_that_is_consumed_in_another_thread(farm: Farm) -> None:
    results = farm.map(abs, (x for x in range(3_000)))
    seen: list[int] = []
    in_threads(lambda _: seen.extend(results), 1)
    assert seen == list(range(3_000))
    made: list[Iterator[int]] = []
    in_threads(lambda _: made.append(farm.map(abs, (x for x in range(3_000)))), 1)
    assert list(made[0]) == list(range(3_000))


def test_consumer_that_stops_loses_nothing(farm: Farm) -> None:
    results = farm.map(listed, range(1_000))
    seen = [next(results)]
    for result in results:
        seen.append(result)
        if len(seen) == 300:
            break
    in_threads(lambda _: seen.extend(results), 1)
    assert seen == [[x] for x in range(1_000)]
