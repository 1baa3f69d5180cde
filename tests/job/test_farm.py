"""The farm over the fake transport: what its users see, whatever the order of events."""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, TaskFarmError, as_completed, task, testing, wait
from taskfarm.errors import (
    CallNotPicklable,
    InitializerFailed,
    TaskExited,
    UsageError,
    WorkerLost,
)


def square(x: int) -> int:
    return x * x


def inverse(x: int) -> float:
    return 1 / x


def ends(error: BaseException) -> None:
    raise error


class Counted:
    """An endless iterable that knows how much was drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.drawn += 1
            yield self.drawn - 1


def test_submit(farm: Farm) -> None:
    assert farm.submit(square, 3).result() == 9
    assert farm.submit(int, "11", base=2).result() == 3
    assert farm.submit(dict, a=1).result() == {"a": 1}


def test_map_is_in_order(farm: Farm) -> None:
    assert list(farm.map(square, range(5000))) == [x * x for x in range(5000)]
    assert list(farm.map(pow, [2, 3], itertools.count(2))) == [4, 27]
    assert list(farm.starmap(pow, [(2, 3), (3, 2)])) == [8, 9]
    assert list(farm.map(square, [])) == []
    assert list(farm.map(lambda: 1)) == []


def test_unordered_map_gives_each_result_once(farm: Farm) -> None:
    results = farm.map(square, range(3000), unordered=True)
    assert sorted(results) == [x * x for x in range(3000)]


def test_endless_map_draws_a_bounded_window(farm: Farm) -> None:
    source = Counted()
    results = farm.map(square, source, buffersize=50)
    for x in range(500):
        assert next(results) == x * x
        assert source.drawn <= x + 51


def test_shutdown_ends_an_endless_map(farm: Farm) -> None:
    source = Counted()
    results = farm.map(square, source, buffersize=10)
    assert next(results) == 0
    farm.shutdown()
    assert source.drawn <= 11
    with pytest.raises(UsageError, match="consume its results inside the `with` block"):
        list(results)


def test_shutdown_finishes_a_sized_map(farm: Farm) -> None:
    results = farm.map(square, range(2000))
    farm.shutdown()
    assert sum(results) == sum(x * x for x in range(2000))


def test_exception_in_a_map_ends_it(farm: Farm) -> None:
    results = farm.map(inverse, [4, 2, 0, 1])
    assert [next(results), next(results)] == [0.25, 0.5]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "in inverse" in str(caught.value.__cause__)
    assert farm.submit(square, 2).result() == 4


def test_iterable_that_raises(farm: Farm) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no more")

    results = farm.map(square, source())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(LookupError, match="no more"):
        next(results)


def test_remote_traceback_says_where(farm: Farm) -> None:
    error = farm.submit(inverse, 0).exception()
    assert isinstance(error, ZeroDivisionError)
    trace = str(error.__cause__)
    assert re.search(r"task \d+ inverse\(0\) on rank", trace)
    assert "return 1 / x" in trace
    assert "running.py" not in trace


def test_bad_arguments_fail_alone(farm: Farm) -> None:
    lock = threading.Lock()
    assert isinstance(farm.submit(str, lock).exception(), CallNotPicklable)
    results = farm.map(str, [1, lock, 3])
    assert next(results) == "1"
    with pytest.raises(CallNotPicklable, match="Pass plain data"):
        next(results)
    with pytest.raises(CallNotPicklable, match="cannot be pickled"):
        farm.map(lambda x: lock, [1])


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), GeneratorExit()])
def test_what_would_end_a_program_fails_the_task(farm: Farm, error: BaseException) -> None:
    with pytest.raises(TaskExited, match=type(error).__name__):
        farm.submit(ends, error).result()
    assert farm.submit(square, 2).result() == 4


def test_interrupt_of_a_serial_task_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt), Farm() as farm:
        farm.submit(ends, KeyboardInterrupt())


def test_arguments_are_as_they_were_at_the_call() -> None:
    with testing.farm() as farm:
        values = [1]
        future = farm.submit(sum, values)
        values.append(10)
        assert future.result() == 1


def test_function_means_what_it_means_at_the_call(farm: Farm) -> None:
    factor = 2

    def times(x: int) -> int:
        return factor * x

    first = farm.submit(times, 10)
    factor = 3
    assert (first.result(), farm.submit(times, 10).result()) == (20, 30)


def test_large_arrays_there_and_back(farm: Farm) -> None:
    array = np.arange(50_000.0)
    result = farm.submit(np.multiply, array, 2.0).result()
    assert np.array_equal(result, 2.0 * array)
    result[0] = -1.0  # writable, and not the caller's
    assert array[0] == 0.0


def test_future_callbacks_and_states() -> None:
    with testing.farm() as farm:
        future = farm.submit(square, 3)
        seen: list[Any] = []
        future.add_done_callback(lambda f: seen.append(f.result()))
        assert not future.done()
        assert future.result() == 9
        future.add_done_callback(lambda f: seen.append("late"))
        assert seen == [9, "late"]
        assert future.done()
        assert not future.cancel()


def test_callback_that_submits(farm: Farm) -> None:
    second = []
    first = farm.submit(square, 2)
    first.add_done_callback(lambda f: second.append(farm.submit(square, f.result())))
    assert first.result() == 4
    assert second[0].result() == 16


def test_cancel() -> None:
    with testing.farm(workers=1) as farm:
        futures = [farm.submit(square, x) for x in range(50)]
        assert futures[-1].cancel()
        assert futures[-1].cancelled()
        with pytest.raises(CancelledError):
            futures[-1].result()
        assert [f.result() for f in futures[:-1]] == [x * x for x in range(49)]


def test_shutdown_that_cancels() -> None:
    farm = testing.farm(workers=1)
    futures = [farm.submit(square, x) for x in range(50)]
    farm.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        farm.submit(square, 1)


def test_exception_inside_with_cancels() -> None:
    futures = []
    with contextlib.suppress(LookupError), testing.farm(workers=1) as farm:
        futures += [farm.submit(square, x) for x in range(50)]
        raise LookupError
    assert futures[-1].cancelled()


def test_timeouts_in_virtual_time() -> None:
    clock = testing.VirtualClock()
    farm = testing.farm(workers=1, faults=[testing.Stuck(1)], clock=clock)
    future = farm.submit(square, 1)
    for waits in (
        lambda: future.result(timeout=10),
        lambda: future.exception(timeout=10),
        lambda: next(as_completed([future], timeout=10)),
        lambda: next(farm.map(square, [1], timeout=10)),
    ):
        before = clock.now()
        with pytest.raises(TimeoutError):
            waits()
        assert 10 <= clock.now() - before < 10.1
    assert wait([future], timeout=5) == (set(), {future})
    with pytest.raises(testing.Aborted):
        _end_of_stuck(farm)


def _end_of_stuck(farm: Farm) -> None:
    farm._master.cancel_all()
    farm._master.scheduler.remove_worker(1)
    farm.shutdown(cancel_futures=True)


def test_as_completed_and_wait(farm: Farm) -> None:
    futures = {farm.submit(square, x): x for x in range(20)}
    assert {futures[f]: f.result() for f in as_completed(futures)} == {x: x * x for x in range(20)}
    more = [farm.submit(square, x) for x in range(20)]
    done, rest = wait(more, return_when=FIRST_COMPLETED)
    assert done
    assert done | rest == set(more)
    more.append(farm.submit(inverse, 0))
    done, _ = wait(more, return_when=FIRST_EXCEPTION)
    assert more[-1] in done
    assert wait(more) == (set(more), set())


def test_decorated_function_uses_the_open_farm(farm: Farm) -> None:
    @task(name="cube", chunksize=2)
    def third_power(x: int) -> int:
        "To the third."
        return x**3

    assert third_power(2) == 8
    assert third_power.submit(2).result() == 8
    assert list(third_power.map([1, 2])) == [1, 8]
    assert sorted(third_power.options(unordered=True).map([1, 2])) == [1, 8]
    assert list(third_power.starmap([(3,)])) == [27]
    assert (third_power.name, third_power.__doc__) == ("cube", "To the third.")
    with pytest.raises(TypeError, match="unknown task option: speed"):
        third_power.options(speed=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": 1.5}, TypeError)],
)
def test_wrong_options(farm: Farm, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        farm.map(square, [1], **options)


def test_initializer() -> None:
    seen: list[int] = []
    with testing.farm(workers=2, initializer=_note, initargs=(seen,)) as farm:
        assert farm.submit(square, 2).result() == 4


def _note(seen: list[int]) -> None:
    seen.append(1)


def test_failing_initializer() -> None:
    with testing.farm(initializer=inverse, initargs=(0,)) as farm:
        with pytest.raises(InitializerFailed, match="division by zero"):
            farm.submit(square, 1).result()
        with pytest.raises(InitializerFailed):
            list(farm.map(square, [1]))


def test_lost_worker() -> None:
    with testing.farm(workers=2, faults=[testing.Dies(1, after=3)]) as farm:
        assert sum(farm.map(square, range(2000))) == sum(x * x for x in range(2000))
        assert farm.num_workers == 1


def test_all_workers_lost() -> None:
    faults = [testing.Dies(rank, after=3) for rank in (1, 2)]
    with testing.farm(workers=2, faults=faults) as farm:
        futures = [farm.submit(square, x) for x in range(100)]
        wait(futures)
        assert isinstance(futures[-1].exception(), WorkerLost)
        with pytest.raises(TaskFarmError, match="all workers are lost"):
            farm.submit(square, 1).result()


FAULTS: list[Callable[[int, int], testing.Fault]] = [
    lambda rank, n: testing.Dies(rank, after=n),
    lambda rank, n: testing.Slow(rank),
]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    workers=st.integers(2, 5),
    calls=st.lists(st.sampled_from(["submit", "map", "unordered", "cancel", "bad"]), max_size=25),
    faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(2, 5), st.integers(1, 30)), max_size=3),
)
def test_every_task_ends_exactly_once(
    seed: int, workers: int, calls: list[str], faults: list[tuple[Any, int, int]]
) -> None:
    made = [make(rank, n) for make, rank, n in faults if rank <= workers]
    ended: list[int] = []
    with testing.farm(workers, seed=seed, faults=made) as farm:
        futures = []
        maps = []
        for call in calls:
            if call in ("submit", "bad"):
                futures.append(farm.submit(square if call == "submit" else inverse, 0))
                futures[-1].add_done_callback(lambda f: ended.append(id(f)))
            elif call == "cancel" and futures:
                futures[seed % len(futures)].cancel()
            else:
                maps.append(farm.map(square, range(200), unordered=call == "unordered"))
        for results in maps:
            assert sorted(results) == [x * x for x in range(200)]
        for future in as_completed(futures):
            assert future.cancelled() or future.exception() or future.result() == 0
    assert sorted(ended) == sorted(map(id, futures))
