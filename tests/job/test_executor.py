"""What the farm has in common with other executors, where it takes care of its own."""

import asyncio
import concurrent.futures
import pickle
import threading
import weakref
from typing import Any

import pytest

from taskfarm import as_completed, testing, wait
from taskfarm.errors import CallNotPicklable, ResultNotPicklable


def square(x: int) -> int:
    return x * x


class Thing:
    """Something to refer to."""


def thing(x: int) -> Thing:
    return Thing()


@pytest.mark.parametrize("cancelled", [False, True])
def test_future_that_was_ended_by_hand_takes_no_outcome(cancelled: bool) -> None:
    farm = testing.farm(workers=1)
    futures = [farm.submit(square, x) for x in range(50)]
    for future in futures[::2]:
        future.set_result(-1)
    farm.shutdown(cancel_futures=cancelled)
    assert all(future.done() for future in futures)
    assert {future.result() for future in futures[::2]} == {-1}


@pytest.mark.parametrize(
    "functions", [(wait, as_completed), (concurrent.futures.wait, concurrent.futures.as_completed)]
)
def test_waiting_functions_run_the_event_loop(functions: tuple[Any, Any]) -> None:
    waits, completes = functions
    with testing.farm(workers=2) as farm:
        futures = [farm.submit(square, x) for x in range(20)]
        assert waits(futures).not_done == set()
        futures = [farm.submit(square, x) for x in range(20)]
        assert sorted(future.result() for future in completes(futures)) == [x * x for x in range(20)]


def test_others_futures_may_be_among_them() -> None:
    cancelled: concurrent.futures.Future[int] = concurrent.futures.Future()
    cancelled.cancel()  # and whose it is has not taken note, so that it has not ended
    other: concurrent.futures.Future[int] = concurrent.futures.Future()
    with testing.farm(workers=2) as farm:
        mine = farm.submit(square, 3)
        done, rest = wait([mine, other, cancelled], return_when=concurrent.futures.FIRST_COMPLETED)
        assert (done, rest) == ({mine}, {other, cancelled})
        with pytest.raises(TimeoutError, match=r"2 \(of 3\) futures unfinished"):
            list(as_completed([mine, other, cancelled], timeout=1))


def test_as_completed_keeps_no_future() -> None:
    with testing.farm() as farm:
        futures = [farm.submit(square, x) for x in range(5)]
        gone = [weakref.ref(future) for future in futures]
        iterator = as_completed(futures)
        del futures
        for future in iterator:
            del future
        assert [ref() for ref in gone] == [None] * 5


def test_map_keeps_no_result() -> None:
    with testing.farm() as farm:
        for result in farm.map(thing, range(100)):
            gone = weakref.ref(result)
            del result
            assert gone() is None


def test_map_goes_on_after_a_shutdown_that_does_not_wait() -> None:
    farm = testing.farm()
    results = farm.map(square, range(1000))
    futures = [farm.submit(square, 3)]
    farm.shutdown(wait=False)
    assert sum(results) == sum(x * x for x in range(1000))
    assert futures[0].result() == 9


def test_what_cannot_be_pickled_is_pickles_error() -> None:
    with testing.farm() as farm:
        for call, kind in (
            ((id, threading.Lock()), CallNotPicklable),
            ((threading.Lock,), ResultNotPicklable),
        ):
            error = farm.submit(*call).exception()
            assert isinstance(error, kind)
            assert isinstance(error, pickle.PicklingError)


def test_asyncio_runs_the_event_loop() -> None:
    async def job() -> list[int]:
        loop = asyncio.get_running_loop()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(loop.run_in_executor(farm, divmod, 1, 0), 60)
        calls = [loop.run_in_executor(farm, square, x) for x in range(100)]
        results = await asyncio.wait_for(asyncio.gather(*calls), 60)
        ticker.cancel()
        assert ticks > 2
        return results

    with testing.farm(workers=2) as farm:
        for _ in range(2):
            assert asyncio.run(job()) == [x * x for x in range(100)]
        assert farm.submit(square, 2).result() == 4
