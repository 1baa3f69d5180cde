"""Users' code that the farm calls: callbacks, `on_error`, and what unpickles results."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import pytest

from taskfarm import Farm, compat, task
from taskfarm.errors import ResultNotLoadable

ENDS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), ValueError()]
"""What callbacks raise; only the last is an `Exception`."""


@pytest.mark.parametrize("length", [3, 2_000])
def test_chain_of_callbacks(open_farm: Callable[[], Farm], length: int) -> None:
    seen: list[int] = []
    with open_farm() as farm:

        def go_on(future: Future[int]) -> None:
            seen.append(future.result())
            if len(seen) < length:
                farm.submit(abs, -len(seen)).add_done_callback(go_on)

        farm.submit(abs, 0).add_done_callback(go_on)
    assert seen == list(range(length))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        farm.submit(abs, 0)


def test_callbacks_that_map_and_wait(open_farm: Callable[[], Farm]) -> None:
    results: list[Any] = []
    with open_farm() as farm:

        def go_on(future: Future[int]) -> None:
            results.append(farm.submit(abs, -future.result()).result())
            results.append(sum(farm.map(abs, (-x for x in range(4)))))

        futures = [farm.submit(abs, -x) for x in range(500)]
        for future in futures:
            future.add_done_callback(go_on)
        wait(futures)
    assert sorted(results) == sorted([*range(500), *[6] * 500])


@pytest.mark.parametrize("raised", ENDS)
def test_callback_that_raises_is_logged(
    farm: Farm, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def end(_: object) -> None:
        raise raised

    future = farm.submit(abs, -1)
    seen: list[object] = []
    for callback in (end, seen.append, end):
        future.add_done_callback(callback)
    assert future.result() == 1
    farm.submit(abs, -1).result()
    assert seen == [future]
    assert [record.name for record in caplog.records] == ["concurrent.futures"] * 2
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def fails(x: int) -> int:
    return 1 // x


@pytest.mark.parametrize("raised", ENDS)
def test_on_error_that_raises_fails_its_task(farm: Farm, raised: BaseException) -> None:
    def end(_: object) -> None:
        raise raised

    failing = task(on_error=end)(fails)
    error = failing.submit(0).exception()
    assert isinstance(error, Exception)
    assert raised in (error, error.__cause__)
    with pytest.raises(type(error)):
        list(failing.map([1, 0, 1]))
    assert farm.submit(abs, -1).result() == 1


def test_on_error_that_waits(farm: Farm) -> None:
    failing = task(on_error=lambda error: farm.submit(abs, -7).result())(fails)
    assert list(failing.map([x % 2 for x in range(200)])) == [1 if x % 2 else 7 for x in range(200)]
    futures = [failing.submit(x % 2) for x in range(60)]
    assert [future.result() for future in futures] == [1 if x % 2 else 7 for x in range(60)]


current: list[Farm] = []


def ask_farm(x: int) -> int:
    return current[0].submit(abs, x).result()


def fail_to_load(error: BaseException) -> None:
    if current:
        raise error


class LoadsBy:
    """A result that calls a function when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        function, *arguments = self.call
        return function, tuple(arguments)


def loads_by(*call: Any) -> LoadsBy:
    return LoadsBy(*call)


def test_results_whose_unpickling_submits_and_waits(farm: Farm) -> None:
    current[:] = [farm]
    try:
        assert list(farm.map(loads_by, [ask_farm] * 100, range(-100, 0))) == list(range(100, 0, -1))
        futures = [farm.submit(loads_by, ask_farm, -x) for x in range(100)]
        assert [future.result() for future in futures] == list(range(100))
        for error in ENDS:
            assert isinstance(farm.submit(loads_by, fail_to_load, error).exception(), ResultNotLoadable)
    finally:
        current.clear()
    assert farm.submit(abs, -1).result() == 1


def test_callbacks_of_a_pool_have_run_when_it_is_joined(open_farm: Callable[[], Farm]) -> None:
    with open_farm() as farm:
        pool = compat.Pool(_farm=farm)
        seen: list[Any] = []

        def go_on(x: int) -> None:
            seen.append(pool.apply_async(abs, (-x,)).get())

        results = [pool.apply_async(abs, (-x,), callback=go_on) for x in range(50)]
        assert [result.get() for result in results] == list(range(50))
        pool.map_async(abs, range(5), callback=seen.extend)
        pool.close()
        pool.join()
        assert sorted(seen) == sorted([*range(50), *range(5)])


def test_failures_that_nobody_looked_at_are_counted(open_farm: Callable[[], Farm]) -> None:
    with open_farm() as farm:
        unseen = farm._master.unseen
        before = unseen.count
        futures = [farm.submit(fails, x % 2) for x in range(10)]
        maps = [farm.map(fails, [1, 0, 0]), farm.map(fails, (x for x in (0, 1)))]
        wait(futures)
    assert unseen.count - before == 5 + 2 + 1
    for future in futures:
        future.exception()
    for results in maps:
        with pytest.raises(ZeroDivisionError):
            list(results)
    assert unseen.count == before
