"""The names of other libraries, over a fake farm: the same results and the same errors as theirs."""

import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import pytest

import taskfarm
from taskfarm import compat, testing
from taskfarm.job.farm import open_on


def square(x: int) -> int:
    return x * x


def power(x: int, y: int = 2) -> int:
    return int(x**y)


def fails_at_three(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


@pytest.fixture
def farm() -> Iterator[taskfarm.Farm]:
    with testing.farm(workers=3, seed=1) as farm:
        yield farm


@pytest.fixture
def pool(farm: taskfarm.Farm) -> compat.Pool:
    return compat.Pool()


Both = Callable[[Any], object]

CALLS: list[Both] = [
    lambda pool: pool.map(square, range(50)),
    lambda pool: pool.map(square, iter(range(50)), 7),
    lambda pool: pool.map(square, []),
    lambda pool: pool.map_async(square, range(9), chunksize=2).get(),
    lambda pool: pool.starmap(power, [(2, 3), (5,)]),
    lambda pool: pool.starmap(power, ((x, 3) for x in range(9))),
    lambda pool: pool.starmap_async(power, [[2, 3], [5, 1]], 1).get(30),
    lambda pool: pool.apply(power, (3,), {"y": 4}),
    lambda pool: pool.apply_async(power, [3], dict(y=4)).get(),
    lambda pool: list(pool.imap(square, range(50))),
    lambda pool: list(pool.imap(square, range(50), 7)),
    lambda pool: sorted(pool.imap_unordered(square, range(50), chunksize=3)),
    lambda pool: pool.map(fails_at_three, range(9)),
    lambda pool: pool.apply(fails_at_three, (3,)),
    lambda pool: pool.map(square, range(3), chunksize="2"),
    lambda pool: pool.imap(square, range(3), chunksize=0),
    lambda pool: pool.map(square, 5),
    lambda pool: pool.starmap(square, [5]),
    lambda pool: pool.join(),
    lambda pool: pickle.dumps(pool),
]


def outcome(call: Both, pool: Any) -> object:
    """What a call returns, or the type of what it raises."""
    try:
        return call(pool)
    except Exception as error:
        return type(error)


@pytest.fixture(scope="module")
def original() -> Iterator[Any]:
    # Threads: this process may have MPI in it, which a fork would break.
    with multiprocessing.pool.ThreadPool(2) as pool:
        yield pool


@pytest.mark.parametrize("call", CALLS)
def test_pool_does_as_the_original(call: Both, pool: compat.Pool, original: Any) -> None:
    assert outcome(call, pool) == outcome(call, original)


def test_imap_goes_on_after_an_error(pool: compat.Pool, original: Any) -> None:
    for each in (pool, original):
        results = each.imap(fails_at_three, range(6))
        found = [outcome(lambda results: next(results), results) for _ in range(7)]
        assert found == [0, 1, 2, KeyError, 4, 5, StopIteration]


def test_istarmap(pool: compat.Pool) -> None:
    assert list(pool.istarmap(power, [(2, 3), (5,)])) == [8, 25]
    assert sorted(pool.istarmap_unordered(power, ((x, 3) for x in range(40)), 7)) == [
        x**3 for x in range(40)
    ]


def broken() -> Iterator[int]:
    yield 1
    raise OSError("gone")


def test_imap_raises_what_the_iterable_does(pool: compat.Pool, original: Any) -> None:
    for each in (pool, original):
        results = each.imap(square, broken())
        assert results.next(timeout=60) == 1
        with pytest.raises(OSError, match="gone"):
            results.next(timeout=60)
        with pytest.raises(StopIteration):
            next(results)


def test_imap_of_an_endless_iterable(pool: compat.Pool) -> None:
    assert list(itertools.islice(pool.imap(square, itertools.count()), 3)) == [0, 1, 4]


def test_callbacks(pool: compat.Pool) -> None:
    good: list[Any] = []
    bad: list[Any] = []
    results = [
        pool.apply_async(square, (3,), callback=good.append, error_callback=bad.append),
        pool.map_async(square, [1, 2], callback=good.append, error_callback=bad.append),
        pool.map_async(square, [], callback=good.append),
        pool.apply_async(fails_at_three, (3,), callback=good.append, error_callback=bad.append),
        pool.starmap_async(fails_at_three, [(3,)], callback=good.append, error_callback=bad.append),
    ]
    for result in results:
        result.wait(60)
    assert [result.successful() for result in results] == [True, True, True, False, False]
    assert sorted(good, key=str) == [9, [1, 4]]
    assert [type(error) for error in bad] == [KeyError, KeyError]


def test_a_callback_that_raises_is_logged(pool: compat.Pool, caplog: pytest.LogCaptureFixture) -> None:
    assert pool.apply_async(square, (3,), callback=fails_at_three).get() == 9
    assert pool.map_async(square, [3], callback=lambda _: 1 / 0).get() == [9]
    (record,) = caplog.records
    assert record.message.startswith("exception calling callback for")


def test_a_callback_may_submit(pool: compat.Pool) -> None:
    later: list[compat.AsyncResult] = []
    pool.apply_async(square, (3,), callback=lambda x: later.append(pool.apply_async(square, (x,)))).get()
    assert later[0].get() == 81


def test_not_ready() -> None:
    silent = testing.Silent(1)
    silent.silent = True
    with testing.farm(workers=1, faults=[silent]):
        pool = compat.Pool()
        result, results = pool.apply_async(square, (3,)), pool.imap(square, [3])
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        result.wait(0.1)
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0.1)
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.1)
        pool.terminate()
        for wait in (result.get, results.next):
            with pytest.raises(CancelledError):
                wait()
        silent.silent = False


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_an_ended_pool_takes_nothing(farm: taskfarm.Farm, end: str) -> None:
    pool = compat.Pool()
    results = [pool.apply_async(square, (3,)), pool.map_async(square, range(3))]
    getattr(pool, end)()
    for call in CALLS[:12]:
        with pytest.raises(ValueError, match="Pool not running"):
            call(pool)
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass
    pool.join()
    if end == "close":
        assert [result.get() for result in results] == [9, [0, 1, 4]]


def test_join_finishes_an_imap(farm: taskfarm.Farm) -> None:
    pool = compat.Pool()
    results = pool.imap(square, range(2000))
    pool.close()
    pool.join()
    assert not farm._master.scheduler.unfinished
    assert sum(results) == sum(map(square, range(2000)))


def test_a_block_ends_by_terminating(farm: taskfarm.Farm) -> None:
    with compat.Pool() as pool:
        result = pool.map_async(square, range(1000))
    with pytest.raises(CancelledError):
        result.get()
    assert compat.Pool().map(square, [4]) == [16]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"processes": 0}, ValueError),
        ({"processes": -1}, ValueError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"maxtasksperchild": 1.5}, ValueError),
        ({"initializer": 5}, TypeError),
    ],
)
def test_wrong_arguments_of_pool(arguments: dict[str, Any], error: type[Exception]) -> None:
    for pool in (compat.Pool, multiprocessing.pool.ThreadPool):
        if pool is compat.Pool or "maxtasksperchild" not in arguments:
            with pytest.raises(error):
                pool(**arguments)


state = 0


def set_state(value: int) -> None:
    global state
    state = value


def get_state(_: int) -> int:
    return state


def test_a_pool_with_initializer_in_one_process() -> None:
    for value in (1, 2):
        pool = compat.Pool(2, set_state, [value])
        result = pool.map_async(get_state, range(3))
        pool.close()
        pool.join()
        assert result.get() == [value] * 3
    with compat.Pool(initializer=set_state, initargs=(3,)) as pool:
        assert pool.map(get_state, [0]) == [3]
    with compat.Pool() as pool:
        assert pool.map(square, [5]) == [25]


def executor(**arguments: Any) -> compat.MPIPoolExecutor:
    master = testing.Master(testing.FakeTransport(3), testing.VirtualClock())
    return open_on(compat.MPIPoolExecutor, master, **arguments)


def test_executor() -> None:
    with pytest.warns(UserWarning, match="the argument 'path' has no effect") as warned:
        opened = executor(max_workers=2, path=["/x"], env={}, use_pkl5=True, backoff=0.1)
    assert len(warned) == 1
    with opened as pool:
        assert pool.bootup(wait=True) is pool
        assert pool.num_workers == 2
        assert pool.submit(power, 3, y=3).result() == 27
        assert list(pool.map(power, range(3), [1, 2, 3], chunksize=2)) == [0, 1, 8]
        assert sorted(pool.map(square, range(9), unordered=True)) == list(map(square, range(9)))
        assert list(pool.starmap(power, [(2, 3), (3, 2)], timeout=60)) == [8, 9]
        futures = [pool.submit(square, x) for x in range(4)]
        assert sum(future.result() for future in compat.as_completed(futures)) == 14
        late = pool.map(square, range(2000))
    assert sum(late) == sum(map(square, range(2000)))
    assert pool.num_workers == 0
    for refused in (pool.bootup, lambda: pool.submit(square, 1), lambda: pool.map(square, [1])):
        with pytest.raises(RuntimeError, match=r"cannot .* after shutdown"):
            refused()
    pool.shutdown()


def test_wrong_arguments_of_executors() -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        executor(max_workers=0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        executor(initializer=5)
    with executor() as pool:
        for wrong in ({"chunksize": 0}, {"buffersize": 0}):
            with pytest.raises(
                ValueError, match=r"chunksize must be >= 1\.|buffersize must be None or > 0"
            ):
                pool.map(square, [1], **wrong)
        with pytest.raises(NotImplementedError):
            pickle.dumps(pool)


def comm(size: int, inter: bool = False) -> Any:
    return SimpleNamespace(Is_inter=lambda: inter, Get_size=lambda: size, Get_rank=lambda: 0)


@pytest.mark.parametrize(
    ("ranks", "root"), [(comm(3, inter=True), 0), (comm(3), 3), (comm(3), -1), (None, 1)]
)
def test_wrong_arguments_of_comm_executor(ranks: Any, root: int) -> None:
    with pytest.raises(ValueError, match="expecting"):
        compat.MPICommExecutor(ranks, root)


def test_comm_executor_in_one_process() -> None:
    with compat.MPICommExecutor(initializer=set_state, initargs=(7,)) as pool:
        assert pool is not None
        assert list(pool.map(get_state, range(2))) == [7, 7]
    with pytest.raises(ZeroDivisionError), compat.MPICommExecutor():
        raise ZeroDivisionError


def test_mpi_pool(farm: taskfarm.Farm) -> None:
    seen: list[int] = []
    with compat.MPIPool() as pool:
        assert pool.is_master()
        assert not pool.is_worker()
        pool.wait()
        assert pool.size == 3
        assert (
            pool.map(square, iter(range(20)), callback=seen.append) == seen == list(map(square, range(20)))
        )
        with pytest.raises(KeyError):
            pool.map(fails_at_three, range(9))
        with pytest.raises(NotImplementedError):
            pickle.dumps(pool)
    assert farm.submit(square, 2).result() == 4


def test_mpi_pool_in_one_process() -> None:
    assert not compat.MPIPool.enabled()
    with pytest.raises(ValueError, match="at least two"):
        compat.MPIPool()


def test_importing_taskfarm_does_not_import_it() -> None:
    code = (
        "import sys, taskfarm; print([name for name in sys.modules if name.startswith('multiprocessing')])"
    )
    code += "; assert not {f'taskfarm.{x}' for x in ('compat', 'pools', 'promises')} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
