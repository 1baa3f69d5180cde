"""Futures among the arguments of tasks."""

import asyncio
import concurrent.futures
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taskfarm
from taskfarm import Farm, compat, task, testing
from taskfarm.errors import CallNotPicklable, DependencyFailed, RemoteTraceback, ResultNotLoadable


@pytest.fixture(params=["serial", "fake"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    if request.param == "serial":
        with Farm() as opened:
            yield opened
    else:
        with testing.farm(workers=3) as opened:
            yield opened


class Model:
    """Notes where it is unpickled."""

    loaded = 0

    def __init__(self, weight: int) -> None:
        self.weight = weight

    def __setstate__(self, state: dict[str, Any]) -> None:
        Model.loaded += 1
        self.__dict__.update(state)


class NotHere:
    """Can be unpickled by tasks, but not by the job."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in_tasks, ()


def _only_in_tasks() -> NotHere:
    if not taskfarm.worker.context.IN_TASK.get():
        raise RuntimeError("not on rank 0")
    return NotHere()


def fails(*_: Any) -> None:
    raise ValueError("no luck")


def total(*values: Any, **named: Any) -> int:
    """The sum of all numbers in some values, at any depth."""
    found = 0
    for value in (*values, *named.values()):
        if isinstance(value, dict):
            found += total(*value.values())
        elif isinstance(value, list | tuple | set):
            found += total(*value)
        else:
            found += value.weight if isinstance(value, Model) else int(value)
    return found


class Holder:
    def __init__(self, content: Any) -> None:
        self.content = content

    def add(self, number: int) -> int:
        return total(self.content) + number


def closure_over(future: Any) -> Callable[[int], int]:
    return lambda number: total(future) + number


def test_futures_are_found_wherever_pickle_finds_them(farm: Farm) -> None:
    one, two = farm.submit(int, "1"), farm.submit(Model, 2)
    deep = farm.submit(total, one, [{"a": (one, [two])}, {1}], named={"b": two})
    assert deep.result() == 1 + 1 + 2 + 1 + 2
    assert farm.submit(Holder.add, Holder([two, one]), deep).result() == 3 + 7
    assert farm.submit(Holder([two]).add, one).result() == 3
    assert farm.submit(partial(total, one, named=two), two).result() == 5
    assert farm.submit(closure_over([one, two]), 4).result() == 7
    assert list(farm.map(partial(total, two), [one, 5, two, 7])) == [3, 7, 4, 9]
    assert list(farm.starmap(total, [(one, two), (3, [one]), (4, 5)])) == [3, 4, 9]
    squares = farm.map(lambda x: x * x, (farm.submit(int, n) for n in range(9)))
    assert sum(squares) == 204
    assert farm.reduce(total, lambda a, b: a + b, [one, 10, two, one]) == 14
    assert farm.submit(two.result().__class__, one).result().weight == 1
    assert farm.submit(farm.submit(closure_over, one), 2).result() == 3, "a function may be a result, too"


def test_a_result_is_passed_on_unopened_and_each_task_has_its_own(farm: Farm) -> None:
    Model.loaded = 0
    model = farm.submit(Model, 3)
    assert farm.submit(total, model, model).result() == 6
    assert Model.loaded == 1, "by the task, once for both arguments"
    hidden = farm.submit(NotHere)
    assert farm.submit(isinstance, hidden, NotHere).result()
    concurrent.futures.wait([hidden])
    assert farm.submit(isinstance, hidden, NotHere).result(), "also when it has ended before"
    with pytest.raises(ResultNotLoadable, match="not on rank 0"):
        hidden.result()
    array = farm.submit(np.zeros, 10_000)
    counts = [farm.submit(_count_up, array) for _ in range(4)]
    counts += [farm.submit(partial(_count_up, array)) for _ in range(4)]
    counts += [farm.submit(_count_up, array)]
    assert [count.result() for count in counts] == [1.0] * 9, "no task sees what another one changed"
    assert array.result()[0] == 0.0


def _count_up(array: Any) -> float:
    array[0] += 1
    return float(array[0])


def test_failures_go_down_with_their_story(farm: Farm) -> None:
    before = farm._master.scheduler.counts()
    bad = farm.submit(fails, 1)
    first = farm.submit(total, 1, bad)
    second = farm.submit(total, [first], tol=2)
    mapped = farm.map(total, [1, second, 3])
    for future, length in ((first, 2), (second, 3)):
        error = future.exception()
        assert isinstance(error, DependencyFailed)
        assert isinstance(error.__cause__, ValueError)
        assert isinstance(error.__cause__.__cause__, RemoteTraceback)
        assert "in fails" in str(error.__cause__.__cause__)
        assert len(error.path) == length
        assert "\n" not in str(error)
    task_of = [future.task_id for future in (bad, first, second)]
    assert str(second.exception()).startswith(
        f"task {task_of[2]} total([<task {task_of[1]}>], tol=2) was not run: task {task_of[1]} "
        f"total(1, <task {task_of[0]}>) was not run: task {task_of[0]} fails(1) failed on rank "
    )
    assert str(second.exception()).endswith("ValueError: no luck")
    assert next(mapped) == 1
    with pytest.raises(DependencyFailed, match=r"fails\(1\) failed") as raised:
        next(mapped)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.path, again.root) == (str(raised.value), raised.value.path, raised.value.root)
    counts = farm._master.scheduler.counts()
    assert (counts.failed - before.failed, counts.not_run - before.not_run, counts.waiting) == (1, 3, 0)
    with pytest.raises(DependencyFailed, match=r"task \d+ total was not run"):
        farm.submit(partial(total, bad), named=1).result()


def test_on_error_hands_exceptions_on(farm: Farm) -> None:
    kept = task(fails, on_error="return")
    replaced = task(fails, on_error=lambda error: [5])
    assert farm.submit(repr, farm.submit(kept)).result() == "ValueError('no luck')"
    assert farm.submit(total, farm.submit(replaced), 1).result() == 6
    lenient = task(total, on_error="return")
    error = farm.submit(lenient, farm.submit(fails)).result()
    assert isinstance(error, DependencyFailed)
    assert (
        farm.submit(repr, farm.submit(lenient, farm.submit(fails))).result().startswith("DependencyFailed(")
    )


def test_a_long_chain_of_failures_is_told_in_short(farm: Farm) -> None:
    last: Any = farm.submit(fails)
    for _ in range(300):
        last = farm.submit(total, last)
    error = last.exception()
    assert isinstance(error, DependencyFailed)
    assert len(error.path) == 301
    assert str(error).count("was not run") < 6
    assert str(error).endswith("ValueError: no luck")


def test_cancelling_passes_down() -> None:
    silent = testing.Silent(1)
    silent.silent = True
    with testing.farm(workers=1, faults=[silent]) as farm:
        running = farm.submit(abs, 1)
        queued = farm.submit(abs, 2)
        needs = farm.submit(total, running, queued)
        after = farm.submit(total, needs)
        alone = farm.submit(total, running)
        assert farm._master.scheduler.counts().waiting == 3
        assert needs.cancel()
        assert after.cancelled()
        assert not alone.done()
        other = farm.submit(total, queued)
        assert queued.cancel()
        assert other.cancelled()
        late = farm.submit(total, [queued])
        concurrent.futures.wait([late])
        assert late.cancelled(), "a future may have been cancelled long before"
        with pytest.raises(concurrent.futures.CancelledError):
            other.result()
        results = farm.map(total, [alone, 1])
        silent.silent = False
        farm.shutdown(wait=False, cancel_futures=True)
        assert alone.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            list(results)
        assert farm._master.scheduler.counts().waiting == 0


def test_futures_of_others_are_refused(farm: Farm) -> None:
    with Farm() as other:
        foreign: list[Any] = [other.submit(abs, 1), concurrent.futures.Future()]
    loop = asyncio.new_event_loop()
    foreign.append(loop.create_future())
    loop.close()
    with ThreadPool(1) as pool, compat.Pool() as ours:
        foreign += [pool.apply_async(int), ours.apply_async(int)]
    for future in foreign:
        for call in (
            lambda: farm.submit(total, [1, {"deep": future}]).result(),  # noqa: B023
            lambda: list(farm.map(total, [1, future])),  # noqa: B023
        ):
            with pytest.raises(TypeError, match=r"a future of another (farm|library)") as raised:
                call()
            assert isinstance(raised.value, CallNotPicklable)
    mine = farm.submit(abs, -3)
    for unusable in (lambda: pickle.dumps(mine), lambda: taskfarm.share(mine)):
        with pytest.raises((TypeError, CallNotPicklable), match="only inside the arguments of a task"):
            unusable()


def test_results_are_kept_only_as_long_as_something_needs_them() -> None:
    with testing.farm(workers=1) as farm:
        result = farm.submit(np.ones, 10_000)
        users = [farm.submit(np.sum, result) for _ in range(1_000)]
        users += [farm.submit(partial(np.add, result), 1) for _ in range(3)]
        concurrent.futures.wait([result])
        given = weakref.ref(result.given())
        assert given() is not None
        concurrent.futures.wait(users)
        farm.submit(abs, 1).result()
        del result
        gc.collect()
        assert given() is None


def test_tasks_wait_for_each_other_in_callbacks_and_asyncio(farm: Farm) -> None:
    seen: list[int] = []
    first = farm.submit(int, 2)
    second = farm.submit(total, first, 1)
    second.add_done_callback(lambda done: seen.append(farm.submit(total, done, first).result()))

    async def job() -> int:
        return await asyncio.wrap_future(farm.submit(total, second, 10))

    assert asyncio.run(job()) == 13
    assert {future.result() for future in taskfarm.as_completed([first, second])} == {2, 3}
    farm.shutdown()
    assert seen == [5]


def test_shared_data_among_results_stays_as_long_as_tasks_need_it(farm: Farm) -> None:
    with_handle = farm.submit(lambda handle: [handle], [taskfarm.share(np.arange(5))])
    assert farm.submit(lambda found: int(found[0][0].value.sum()), with_handle).result() == 10


FAULTS: list[Callable[[int, int], testing.Fault]] = [
    testing.Dies,
    lambda worker, _: testing.Slow(worker),
]


def node(number: int, fragile: int, needs: Any) -> int:
    """A node of a graph: its value depends on the order of those that it needs."""
    if fragile == 2:
        raise ValueError(number)
    return hash((number, *(value for value in needs)))


def run_graph(farm: Farm, graph: list[tuple[int, list[int]]]) -> list[Any]:
    """Submit each node with the futures of those before it that it needs."""
    retried, futures = task(node, retries=1), [farm.submit(node, -1, 0, ())]
    for number, (kind, needs) in enumerate(graph):
        chosen = [futures[need % len(futures)] for need in needs]
        if kind == 3:
            futures.append(farm.submit(partial(node, needs=chosen), number, kind))
        else:
            futures.append(farm.submit(retried if kind else node, number, kind, chosen))
    lenient, items = task(node, on_error="return"), [[future] for future in futures]
    mapped = farm.map(lenient, range(len(futures)), [0] * len(futures), items)
    found = [_outcome(future) for future in futures]
    return found + [type(value).__name__ if isinstance(value, Exception) else value for value in mapped]


def _outcome(future: Any) -> Any:
    error = future.exception()
    return future.result() if error is None else type(error).__name__


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    workers=st.integers(1, 4),
    graph=st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 50), max_size=4)), max_size=25),
    faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(2, 4), st.integers(1, 30)), max_size=2),
)
def test_random_graphs_give_the_serial_result(
    seed: int, workers: int, graph: list[Any], faults: list[Any]
) -> None:
    with Farm() as serial:
        expected = run_graph(serial, graph)
    made = [make(rank, after) for make, rank, after in faults if rank <= workers]
    with testing.farm(workers, seed=seed, faults=made) as farm:
        found = run_graph(farm, graph)
        farm._master.scheduler.check()
    assert found == expected
