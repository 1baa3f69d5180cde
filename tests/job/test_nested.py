"""Tasks that submit tasks: whatever they wait for or return, and whoever dies, all is as in one process."""

import concurrent.futures
import operator
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, as_completed, current, rng, task, testing, wait
from taskfarm.errors import DependencyFailed, UsageError
from taskfarm.job.farm import open_on
from taskfarm.master.master import Master
from taskfarm.worker.local import LocalTransport

FAILED = -1000

Tree = tuple[str, int, tuple[Any, ...]]

KINDS = ("wait", "join", "inside", "map", "starmap", "reduce", "completed", "chain", "drop", "raise")


@task
def grow(tree: Tree) -> Any:
    kind, value, branches = tree
    return GROW[KINDS.index(kind)](value, branches)


@task
def add(one: Any, other: Any) -> int:
    return flat(one) + flat(other)


def flat(value: Any) -> int:
    """The sum of all numbers in a result."""
    if isinstance(value, dict):
        value = list(value.values())
    return value if isinstance(value, int) else sum(map(flat, value))


def looked_at(future: Any) -> int:
    try:
        return flat(future.result())
    except (ValueError, DependencyFailed):
        return FAILED


def _wait(value: int, branches: tuple[Tree, ...]) -> int:
    return value + sum(map(looked_at, [grow.submit(branch) for branch in branches]))


def _join(value: int, branches: tuple[Tree, ...]) -> Any:
    return grow.submit(branches[0]) if branches else value


def _inside(value: int, branches: tuple[Tree, ...]) -> Any:
    return {"value": value, "branches": [(grow.submit(branch), 1) for branch in branches]}


def _map(value: int, branches: tuple[Tree, ...]) -> int:
    results = grow.map(branches, unordered=len(branches) > 2)
    try:
        return value + sum(map(flat, results))
    except (ValueError, DependencyFailed):
        return FAILED


def _starmap(value: int, branches: tuple[Tree, ...]) -> Any:
    return [value, list(add.starmap((value, len(branch)) for branch in branches))]


def _reduce(value: int, branches: tuple[Tree, ...]) -> int:
    return add.reduce(operator.add, range(len(branches)), range(len(branches)), initial=value)


def _completed(value: int, branches: tuple[Tree, ...]) -> int:
    futures = [grow.submit(branch) for branch in branches]
    done, pending = wait(futures)
    assert not pending
    assert len(done) == len(futures)
    return value + sum(looked_at(future) for future in as_completed(futures))


def _chain(value: int, branches: tuple[Tree, ...]) -> Any:
    last: Any = value
    for branch in branches:
        last = add.submit(last, other=[grow.submit(branch)])
    return last


def _drop(value: int, branches: tuple[Tree, ...]) -> int:
    for branch in branches:
        grow.submit(branch)
    return value


def _raise(value: int, branches: tuple[Tree, ...]) -> int:
    for branch in branches:
        grow.submit(branch)
    raise ValueError(value)


GROW = (_wait, _join, _inside, _map, _starmap, _reduce, _completed, _chain, _drop, _raise)


def expected(tree: Tree) -> int | None:
    """What a serial run of a tree gives; None if it fails."""
    kind, value, branches = tree
    below = [expected(branch) for branch in branches]
    sums = [FAILED if one is None else one for one in below]
    match kind:
        case "raise":
            return None
        case "wait" | "completed":
            return value + sum(sums)
        case "map":
            return FAILED if None in below else value + sum(sums)
        case "join":
            return value if not below else below[0]
        case "inside":
            return None if None in below else value + sum(sums) + len(below)
        case "chain":
            return None if None in below else value + sum(sums)
        case "starmap":
            return value + sum(value + len(branch) for branch in branches)
        case "reduce":
            return value + sum(2 * at for at in range(len(branches)))
    return value


def trees() -> st.SearchStrategy[Tree]:
    leaf = st.tuples(st.just("drop"), st.integers(0, 9), st.just(()))

    def grown(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        branches = st.lists(below, max_size=3).map(tuple)
        return st.tuples(st.sampled_from(KINDS), st.integers(0, 9), branches)

    return st.recursive(leaf, grown, max_leaves=12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(trees(), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), max_size=2),
    st.integers(0, 5),
)
def test_any_tree_gives_the_serial_result(
    roots: list[Tree], workers: int, seed: int, deaths: list[tuple[int, int]], slow: int
) -> None:
    dying = {worker: after for worker, after in deaths if 1 < worker <= workers}
    faults: list[testing.Fault] = [testing.Dies(worker, after) for worker, after in dying.items()]
    faults.append(testing.Slow(slow))
    with testing.farm(workers, seed=seed, faults=faults) as farm:
        futures = [grow.submit(root) for root in roots]
        for root, future in zip(roots, futures, strict=True):
            value = expected(root)
            if value is None:
                with pytest.raises((ValueError, DependencyFailed)):
                    future.result()
            else:
                assert flat(future.result()) == value
    # Closing the farm has checked that each task is in exactly one state.
    assert farm._master.scheduler.unfinished == 0


@task(retries=1)
def draw(depth: int) -> list[Any]:
    first = float(rng().random())
    if current().attempt == 1 and int(first * 100) % 5 == 0:
        raise RuntimeError("once more")
    if not depth:
        return [first]
    return [
        first,
        draw.submit(depth - 1),
        draw.submit(depth - 1).result(),
        list(draw.map([depth - 1] * 2)),
        float(rng().random()),
    ]


def test_random_numbers_depend_on_the_place_alone() -> None:
    drawn = []
    for workers, faults in ((1, []), (3, [testing.Dies(2, 9)]), (5, [testing.Slow(1)])):
        master = testing.FakeTransport(workers, seed=workers, faults=faults)
        with testing.farm(workers, seed=workers, faults=faults) as farm:
            farm._farm.seed = 7
            del master
            drawn.append(draw.submit(3).result())
    assert drawn[0] == drawn[1] == drawn[2]
    numbers = str(drawn[0]).replace("[", "").replace("]", "").split(", ")
    assert len(set(numbers)) == len(numbers) > 100


@task
def split(depth: int) -> Any:
    return [split.submit(depth - 1) for _ in range(10)] if depth else 1


def test_a_large_tree_keeps_a_short_queue() -> None:
    longest = 0
    with testing.farm(4) as farm:

        def look(now: float) -> None:
            nonlocal longest
            longest = max(longest, farm._master.scheduler.counts().queued)

        future = split.submit(4)
        while not future.done():
            farm._master.run_once()
            look(0.0)
        assert flat(future.result()) == 10**4
    assert 10 < longest < 2000


@task
def deep(depth: int) -> int:
    return deep.submit(depth - 1).result() + 1 if depth else 0


@task
def tail(depth: int) -> Any:
    return tail.submit(depth - 1) if depth else "end"


def test_waits_have_a_greatest_depth_and_returned_futures_have_none() -> None:
    with testing.farm(1):
        assert deep.submit(150).result() == 150
        with pytest.raises(
            UsageError, match=r"200 tasks wait inside each other .* return the future instead"
        ):
            deep.submit(250).result()
        assert tail.submit(1000).result() == "end"


@task
def fail_with_children(count: int) -> None:
    for _ in range(count):
        grow.submit(("drop", 1, ()))
    raise ValueError("parent")


def test_a_failed_task_cancels_what_it_has_submitted() -> None:
    with testing.farm(1) as farm:
        with pytest.raises(ValueError, match="parent"):
            fail_with_children.submit(20).result()
        farm._master.run_once()
        counts = farm._master.scheduler.counts()
    assert (counts.cancelled, counts.failed) == (20, 1)


@task
def cancel_one() -> list[Any]:
    first, second = deep.submit(0), deep.submit(0)
    answers = [second.cancel(), second.cancelled(), first.cancelled(), first.result(), first.cancel()]
    done, _ = wait([first, second])
    return [*answers, len(done), first.done()]


def test_a_task_cancels_a_call_that_is_queued() -> None:
    with testing.farm(1):
        assert cancel_one.submit().result() == [True, True, False, 0, False, 2, True]


@task
def chain_of_failures() -> Any:
    broken = grow.submit(("raise", 5, ()))
    return [add.submit(broken, 1), 2]


def test_the_failure_of_a_returned_future_tells_the_path() -> None:
    with testing.farm(2), pytest.raises(DependencyFailed) as caught:
        chain_of_failures.submit().result()
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.args == (5,)
    text = str(error)
    assert "chain_of_failures has no result: task" in text
    assert "add was not run: task" in text
    assert [call.split()[2].partition("(")[0] for call in error.path] == [
        "grow",
        "add",
        "chain_of_failures",
    ]


@task
def fails_deep(depth: int) -> int:
    return 1 // 0 if not depth else fails_deep.submit(depth - 1).result()


def test_a_traceback_has_each_level_once() -> None:
    with testing.farm(1), pytest.raises(ZeroDivisionError) as caught:
        fails_deep.submit(3).result()
    text = str(caught.value.__cause__)
    for depth in range(4):
        assert text.count(f"fails_deep({depth}) on rank") == 1
    assert text.count("Traceback (most recent call last)") == 4
    assert text.count("1 // 0") == 4


@task(on_error="return")
def replaced() -> int:
    raise ValueError("returned")


@task
def options_inside() -> list[Any]:
    returned = replaced.submit().result()
    again = draw.options(retries=2, on_error=lambda error: "dropped").submit(0)
    with pytest.raises(UsageError, match="a task cannot open or use a Farm"):
        Farm()
    with pytest.raises(UsageError, match="cannot use map_array"):
        add.map_array([1.0])
    return [str(returned), bool(again.result())]


def test_options_of_calls_in_tasks() -> None:
    with testing.farm(2):
        assert options_inside.submit().result() == ["returned", True]


@task
def from_a_thread() -> str:
    future = deep.submit(0)
    texts: list[str] = []

    def look() -> None:
        try:
            future.result()
        except UsageError as error:
            texts.append(str(error))

    context = __import__("contextvars").copy_context()
    thread = threading.Thread(target=context.run, args=(look,))
    thread.start()
    thread.join()
    future.result()
    return texts[0]


def test_another_thread_of_a_task_cannot_wait() -> None:
    with testing.farm(1):
        assert "only the thread that runs a task" in from_a_thread.submit().result()


@task
def waits_for_a_while() -> list[Any]:
    future = grow.submit(("wait", 1, (("drop", 2, ()),)))
    with pytest.raises((TimeoutError, concurrent.futures.TimeoutError)):
        future.result(timeout=0)
    polled = 0
    while not future.done():
        polled += 1
    called: list[int] = []
    future.add_done_callback(lambda ended: called.append(ended.result()))
    return [future.result(), called, polled < 1000]


def test_polling_makes_progress() -> None:
    with testing.farm(1):
        assert waits_for_a_while.submit().result() == [3, [3], True]


def test_of_one_process() -> None:
    """The worker runs inside of the master, in one thread."""
    tree: Tree = ("wait", 1, (("inside", 2, (("drop", 3, ()),)), ("map", 4, ())))
    farm = open_on(Farm, Master(LocalTransport()))
    with farm:
        assert flat(grow.submit(tree).result()) == expected(tree)
        assert list(deep.map(range(5))) == list(range(5))


def test_a_map_of_trees() -> None:
    with testing.farm(3):
        roots: list[Tree] = [("inside", at, (("wait", 1, ()),)) for at in range(50)]
        assert sum(map(flat, grow.map(roots))) == sum(range(50)) + 100
        assert grow.reduce(lambda one, other: flat([one, other]), roots) == sum(range(50)) + 100
