"""Several executors at a time share the workers; each has its own queue, initializer, seed and end."""

import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import ProcessPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, as_completed, compat, rng, task, testing, wait
from taskfarm.errors import InitializerFailed, UsageError, WorkerLost
from taskfarm.job.current_farm import registry
from taskfarm.job.farm import current_farm, open_on


def square(x: int) -> int:
    return x * x


def inverse(x: int) -> float:
    return 1 / x


def draw(_: int) -> float:
    return float(rng().random())


@pytest.fixture(params=["fake", "serial"])
def outer(request: pytest.FixtureRequest) -> Iterator[Farm]:
    """A farm inside of whose block others are opened."""
    with testing.farm(workers=3, seed=1) if request.param == "fake" else Farm() as farm:
        yield farm


OPENED: list[Callable[[], Any]] = [Farm, compat.MPIPoolExecutor, compat.Pool, compat.MPIPool]


def test_all_kinds_at_once(outer: Farm) -> None:
    with (
        Farm() as farm,
        compat.MPIPoolExecutor() as executor,
        compat.Pool() as pool,
        compat.MPIPool() as other,
    ):
        maps = [each.map(square, range(500)) for each in (outer, farm, executor)]
        lazy = [pool.imap_unordered(square, range(500)), pool.map_async(square, range(500))]
        expected = sum(map(square, range(500)))
        assert [sum(results) for results in maps] == [expected] * 3
        assert (sum(lazy[0]), sum(lazy[1].get()), sum(other.map(square, range(500)))) == (expected,) * 3
    assert outer.submit(square, 3).result() == 9


@pytest.mark.parametrize("kind", OPENED)
def test_closing_one_leaves_the_others_alone(outer: Farm, kind: Callable[[], Any]) -> None:
    mine = [outer.submit(square, x) for x in range(30)]
    with kind() as inner:
        assert sum(inner.map(square, range(100))) == sum(map(square, range(100)))
    more = [outer.submit(square, x) for x in range(30)]
    assert [future.result() for future in mine + more] == 2 * [x * x for x in range(30)]


def test_shutdown_waits_for_its_own_tasks_only() -> None:
    stuck = testing.Stuck(1)
    with testing.farm(workers=2, faults=[stuck]) as outer:
        _, (blocked,) = wait([outer.submit(square, 3) for _ in "ab"], return_when="FIRST_COMPLETED")
        with Farm() as inner:
            futures = [inner.submit(square, x) for x in range(20)]
        assert [future.result() for future in futures] == [x * x for x in range(20)]
        assert not blocked.done()
        stuck.waits = lambda others_can_go_on: False  # type: ignore[method-assign]
        assert blocked.result() == 9


def test_cancelling_one_cancels_its_own_tasks_only(outer: Farm) -> None:
    kept = [outer.submit(square, x) for x in range(200)]
    inner = Farm()
    futures = [inner.submit(square, x) for x in range(200)]
    inner.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert [future.result() for future in kept] == [x * x for x in range(200)]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        inner.submit(square, 1)


def test_out_of_order_and_without_waiting(outer: Farm) -> None:
    one, two, three = Farm(), Farm(), Farm()
    results = one.map(square, range(300))
    one.shutdown(wait=False)
    future = three.submit(square, 7)
    two.shutdown()
    assert sum(results) == sum(map(square, range(300)))
    three.shutdown(wait=False)
    assert future.result() == 49
    assert outer.submit(square, 2).result() == 4


class Setup:
    """What initializers of this test set, on the worker that shares this process."""

    values: dict[str, int] = {}  # noqa: RUF012
    runs: list[str] = []  # noqa: RUF012


def prepare(name: str, value: int) -> None:
    Setup.values[name] = value
    Setup.runs.append(name)


def prepared(name: str) -> int:
    return Setup.values[name]


def test_each_has_its_initializer_once_a_worker(outer: Farm) -> None:
    Setup.runs.clear()
    with Farm(initializer=prepare, initargs=("a", 1)) as a:
        with compat.Pool(initializer=prepare, initargs=("b", 2)) as b:
            assert set(a.map(prepared, ["a"] * 50)) == {1}
            assert set(b.map(prepared, ["b"] * 50)) == {2}
            assert set(a.map(prepared, ["b"] * 50)) == {2}
    assert sorted(Setup.runs) == ["a"] * outer.num_workers + ["b"] * outer.num_workers


NAMESPACE = """
def prepare(value):
    global memory
    memory = value

def recall(x):
    return memory
"""


def test_globals_of_main_are_those_of_the_own_initializer(
    outer: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    main: Any = ModuleType("__main__")
    exec(NAMESPACE, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    prepare, recall = main.prepare, main.recall
    farms = [Farm(initializer=prepare, initargs=(value,)) for value in range(4)]
    found = [[set(farm.map(recall, range(40))) for farm in farms] for _ in range(2)]
    assert found == [[{value} for value in range(4)]] * 2
    for farm in farms:
        farm.shutdown()


def test_an_initializer_that_fails_fails_its_own_farm(outer: Farm) -> None:
    kept = outer.map(square, range(300))
    broken = Farm(initializer=inverse, initargs=(0,))
    results = [outer.submit(square, 5)]
    with pytest.raises(InitializerFailed, match="division by zero"):
        broken.submit(square, 1).result()
    with pytest.raises(InitializerFailed):
        list(broken.map(square, range(9)))
    assert sum(kept) == sum(map(square, range(300)))
    with Farm(initializer=square, initargs=(2,)) as later:
        assert later.submit(square, 6).result() == 36
        assert results[0].result() == 25
    broken.shutdown()
    assert outer.submit(square, 2).result() == 4


def test_the_loss_of_all_workers_fails_all() -> None:
    faults = [testing.Dies(rank, after=6) for rank in (1, 2)]
    with testing.farm(workers=2, faults=faults) as one, Farm() as two:
        futures = [farm.submit(square, x) for x in range(100) for farm in (one, two)]
        wait(futures)
        assert {type(future.exception()) for future in futures} <= {type(None), WorkerLost}
        for farm in (one, two):
            with pytest.raises(WorkerLost):
                farm.submit(square, 1).result()


def test_seeds_are_separate(outer: Farm) -> None:
    def draws(*between: Callable[[], Any]) -> tuple[list[float], float]:
        with Farm(seed=5) as farm:
            for call in between:
                call()
            drawn = list(farm.map(draw, range(20)))
            return drawn, farm.submit(draw, 0).result()

    alone = draws()
    assert alone == draws(lambda: list(outer.map(draw, range(7))), lambda: outer.submit(draw, 0).result())
    with Farm(seed=6) as other:
        assert list(other.map(draw, range(20))) != alone[0]
    with Farm() as one, Farm() as two:
        both = list(one.map(draw, range(50))) + list(two.map(draw, range(50)))
        assert len(set(both)) == 100, "the same seed, but never the same numbers"


def test_which_farm_tasks_use(outer: Farm) -> None:
    used = current_farm
    assert used() is outer
    with Farm() as inner:
        assert used() is inner
        opened = Farm()
        assert used() is inner, "the innermost block comes first"
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(used()))
        thread.start()
        thread.join()
        assert found == [opened], "other threads use the last one"
        with compat.Pool():
            assert used() is inner
        with compat.MPIPoolExecutor() as executor:
            assert used() is executor
        pool = compat.Pool()
        assert used() is inner
        opened.shutdown()
        pool.terminate()
    assert used() is outer
    assert task(square).submit(4).result() == 16


def test_a_default_farm_stays_beside_others() -> None:
    first = task(square).submit(2)
    default = current_farm()
    with Farm() as farm:
        assert current_farm() is farm
        assert default.submit(square, 3).result() == 9
    assert current_farm() is default
    assert first.result() == 4
    default.shutdown()


def test_max_workers_limits_how_many_serve_at_a_time() -> None:
    master = testing.Master(testing.FakeTransport(4), testing.VirtualClock())
    with open_on(Farm, master) as outer, Farm(2) as two, compat.Pool(1) as one:
        assert (outer.num_workers, two.num_workers, one._processes) == (4, 2, 1)
        sent: dict[int, set[int]] = {}
        check = master._dispatch

        def dispatch() -> None:
            check()
            for farm in master.farms.values():
                sent.setdefault(farm.id, set()).add(len(farm.tasks.held))

        master._dispatch = dispatch  # type: ignore[method-assign]
        limited = [two.map(square, range(500)), one.imap(square, range(500)), outer.map(square, range(500))]
        assert [sum(results) for results in limited] == [sum(map(square, range(500)))] * 3
    most = [max(sent[id]) for id in sorted(sent)]
    assert most[0] >= 2
    assert most[1:] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": "2"}, TypeError, "'<=' not supported"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
    ],
)
def test_wrong_arguments_are_those_of_the_standard_library(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    for kind in (Farm, ProcessPoolExecutor):
        with pytest.raises(error, match=text):
            kind(**arguments)  # type: ignore[call-overload]


def test_thousands_leave_nothing_behind() -> None:
    before = registry._farms()
    with testing.farm(workers=2, initializer=square, initargs=(1,)) as outer:
        master = outer._master
        for x in range(600):
            with Farm(initializer=square, initargs=(1,)) if x % 3 else Farm(seed=x) as farm:
                assert farm.submit(lambda y, x=x: x + y, 1).result() == x + 1
            gone = weakref.ref(farm)
            del farm
        many = [Farm() for _ in range(300)]
        assert [farm.submit(square, 3).result() for farm in many] == [9] * 300
        for farm in many:
            farm.shutdown()
        assert outer.submit(square, 2).result() == 4
        with Farm(initializer=square, initargs=(1,)) as last:
            list(last.map(square, range(100)))
            assert len(master.farms) == 2
            for fake in master.transport._workers.values():  # type: ignore[attr-defined]
                runner = fake._worker._runner
                assert len(runner._farms) <= 4
                assert len(runner._functions) <= 6
        scheduler = master.scheduler
        assert (len(scheduler._farms), len(scheduler.farm_of), len(scheduler._estimates)) == (2, 1, 1)
        del many
        gc.collect()
        assert gone() is None
        assert [farm for farm in registry._farms() if farm not in before] == [outer]


def test_an_executor_without_reference_is_closed() -> None:
    with testing.farm(workers=2) as outer:
        future = compat.MPIPoolExecutor().submit(square, 4)
        gc.collect()
        assert future.result() == 16
        outer.submit(square, 1).result()
        assert len(outer._master.farms) == 1


def test_a_farm_on_its_own_master_closes_those_in_it() -> None:
    outer = testing.farm(workers=2)
    inner = Farm()
    future = inner.submit(square, 3)
    outer.shutdown()
    assert future.result() == 9
    with pytest.raises(UsageError, match="after shutdown"):
        inner.submit(square, 3)


def test_threads_open_and_close_at_once() -> None:
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    failures: list[BaseException] = []

    def job(k: int) -> None:
        try:
            for x in range(12):
                with (Farm, compat.Pool, compat.MPIPoolExecutor)[x % 3]() as executor:
                    assert list(executor.map(square, range(20))) == [y * y for y in range(20)]
        except BaseException as error:
            failures.append(error)

    try:
        with testing.farm(workers=3) as outer:
            threads = [threading.Thread(target=job, args=(k,)) for k in range(4)]
            for thread in threads:
                thread.start()
            futures: list[Future[int]] = [outer.submit(square, x) for x in range(100)]
            assert sum(future.result() for future in as_completed(futures)) == sum(map(square, range(100)))
            for thread in threads:
                thread.join()
            assert not failures
            assert len(outer._master.farms) == 1
    finally:
        sys.setswitchinterval(switch)


def test_terminate_abandons_what_runs() -> None:
    stuck = testing.Stuck(1)
    with testing.farm(workers=1, faults=[stuck]) as outer:
        pool = compat.Pool()
        results = [pool.apply_async(square, (x,)) for x in range(10)]
        lazy = pool.imap(square, range(10))
        outer._master.run_once()
        pool.terminate()
        pool.join()
        for get in (results[0].get, results[9].get, lazy.next):
            with pytest.raises(CancelledError):
                get()
        assert outer._master.unfinished == 0
        stuck.waits = lambda others_can_go_on: False  # type: ignore[method-assign]
        assert outer.submit(square, 3).result() == 9
    assert not outer._master.scheduler.unfinished


FAULTS: list[Callable[[int, int], testing.Fault]] = [
    lambda rank, n: testing.Dies(rank, after=n),
    lambda rank, n: testing.Slow(rank),
]

KINDS: list[dict[str, Any]] = [
    {},
    {"seed": 3},
    {"max_workers": 1},
    {"max_workers": 2, "initializer": square, "initargs": (1,)},
    {"initializer": square, "initargs": (1,)},
    {"initializer": inverse, "initargs": (0,)},
]


class Job:
    """A job that opens, uses and closes farms step by step; `k` is some number that a step uses."""

    def __init__(self, outer: Farm) -> None:
        self.outer = outer
        self.farms = [outer]
        self.futures: list[Any] = []
        self.maps: list[Iterator[int]] = []
        self.ended: list[int] = []

    def open(self, k: int) -> None:
        self.farms.append(Farm(**KINDS[k]))

    def submit(self, k: int) -> None:
        farm = self.farms[k % len(self.farms)]
        with contextlib.suppress(InitializerFailed):
            for x in range(k + 1):
                self.futures.append(farm.submit((square, inverse, FLAKY)[x % 3], x % 2))
                self.futures[-1].add_done_callback(lambda future: self.ended.append(id(future)))

    def map(self, k: int) -> None:
        with contextlib.suppress(InitializerFailed):
            self.maps.append(self.farms[k % len(self.farms)].map(square, range(100 * k)))

    def wait(self, k: int) -> None:
        wait(self.futures[:k])

    def cancel(self, k: int) -> None:
        for future in self.futures[k::5]:
            future.cancel()

    def close(self, k: int) -> None:
        if farm := self._take(k):
            farm.shutdown(wait=k % 2 > 0, cancel_futures=k % 3 > 1)

    def abandon(self, k: int) -> None:
        if farm := self._take(k):
            farm.abandon()

    def _take(self, k: int) -> Farm | None:
        at = k % len(self.farms)
        return self.farms.pop(at) if at else None

    def end(self) -> None:
        for results in self.maps:
            with contextlib.suppress(InitializerFailed, CancelledError):
                found = list(results)
                assert found == [x * x for x in range(len(found))]
        for farm in self.farms[1:]:
            farm.shutdown()
        assert wait(self.futures).not_done == set()
        for future in self.futures:
            assert future.cancelled() or future.exception() or future.result() in (0, 1)


FLAKY = task(retries=1)(inverse)
STEPS = [Job.open, Job.open, Job.submit, Job.submit, Job.map, Job.wait, Job.cancel, Job.close, Job.abandon]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    workers=st.integers(2, 5),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=40),
    faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(2, 5), st.integers(1, 40)), max_size=3),
)
def test_whatever_is_opened_and_closed_every_task_ends_once(
    seed: int, workers: int, steps: list[tuple[Any, int]], faults: list[tuple[Any, int, int]]
) -> None:
    made = [make(rank, n) for make, rank, n in faults if rank <= workers]
    with testing.farm(workers, seed=seed, faults=made) as outer:
        job = Job(outer)
        for step, k in steps:
            step(job, k)
            outer._master.scheduler.check()
        job.end()
    assert sorted(job.ended) == sorted(map(id, job.futures))
    assert not outer._master.farms
    assert not outer._master.outstanding.pending._sources
