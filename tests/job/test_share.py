"""`share` and `build`: data that many tasks need, over the fake transport and in one process."""

import functools
import gc
import itertools
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import taskfarm
from taskfarm import Farm, Shared, TaskFarmError, build, share, task, testing
from taskfarm.errors import BuildFailed, CallNotPicklable, SharedDataError, UsageError
from taskfarm.protocol.shared import follow_freed


@task
def total(x: float, table: Any) -> tuple[float, bool]:
    return x + float(table.sum()), bool(table.flags.writeable)


@task
def through_handle(x: float, box: dict[str, Any]) -> float:
    return x + float(box["table"].value.sum())


@task
def write(table: Any) -> None:
    table[0] = 1


@task
def kind_of(value: Any) -> str:
    return type(value).__name__


@task
def share_in_task() -> None:
    taskfarm.share([1])


@task
def key_of(value: Any, key: str) -> Any:
    return value[key]


def table() -> Any:
    return np.arange(10_000.0)


TOTAL = float(table().sum())


def test_a_handle_that_is_an_argument_arrives_as_its_value(farm: Farm) -> None:
    handle = share(table())
    expected = [(x + TOTAL, False) for x in range(20)]
    assert list(farm.map(total, range(20), itertools.repeat(handle))) == expected
    assert list(farm.starmap(total, [(x, handle) for x in range(20)])) == expected
    assert list(total.map(range(20), table=handle)) == expected
    assert farm.submit(total, 1, handle).result() == expected[1]
    assert farm.submit(total, 1, table=handle).result() == expected[1]


def test_elsewhere_it_arrives_as_a_handle(farm: Farm) -> None:
    handle = share(table())
    assert list(through_handle.map(range(3), itertools.repeat({"table": handle}))) == [
        x + TOTAL for x in range(3)
    ]
    assert list(farm.map(functools.partial(through_handle, box={"table": handle}), range(3))) == [
        x + TOTAL for x in range(3)
    ]
    assert list(farm.map(lambda x: x + float(handle.value.sum()), range(3))) == [
        x + TOTAL for x in range(3)
    ]
    assert farm.submit(functools.partial(kind_of, handle)).result() == "Shared"


def test_a_column_may_mix_handles_and_values(farm: Farm) -> None:
    first, second = share([1.0]), share(np.ones(3))
    assert list(kind_of.map([first, 2, second, first])) == ["list", "int", "ndarray", "list"]


def test_what_is_shared_is_as_it_was(farm: Farm) -> None:
    array = table()
    handle = share(array)
    array[:] = 0
    assert farm.submit(total, 0, handle).result() == (TOTAL, False)


@pytest.mark.parametrize(
    "array", [np.asfortranarray(np.ones((4, 5))), np.ones((6, 8))[::2, ::2], np.array(3.0), np.ones(0)]
)
def test_arrays_of_any_layout(farm: Farm, array: Any) -> None:
    handle = share(array)
    np.testing.assert_array_equal(handle.value, array)
    assert not handle.value.flags.writeable
    assert farm.submit(total, 0, handle).result() == (float(array.sum()), False)


def test_writing_says_to_copy_it(farm: Farm) -> None:
    handle = share(table())
    with pytest.raises(ValueError, match="read-only") as caught:
        farm.submit(write, handle).result()
    assert any(".copy()" in note for note in caught.value.__notes__)
    with pytest.raises(ValueError, match="read-only"):
        handle.value[0] = 1


def test_the_same_object_has_one_handle_until_it_changes() -> None:
    array = table()
    handle = share(array)
    assert share(array) is handle
    array[0] = 5
    changed = share(array)
    assert changed is not handle
    assert (handle.value[0], changed.value[0]) == (0, 5)
    assert share(table()) is not handle


def test_it_can_be_a_container_of_anything(farm: Farm) -> None:
    handle = share({"weights": np.ones(1000), "names": ["a", "b"]})
    assert handle.nbytes > 8000
    assert list(key_of.map(itertools.repeat(handle, 2), itertools.repeat("names"))) == [["a", "b"]] * 2
    assert handle.value["names"] == ["a", "b"]
    assert not handle.value["weights"].flags.writeable


def test_the_end_of_the_outermost_block_frees_it(farm: Farm) -> None:
    array = table()
    with share(array) as handle:
        with share(array) as again:
            assert again is handle
        assert farm.submit(total, 0, handle).result() == (TOTAL, False)
    with pytest.raises(SharedDataError, match="was freed"):
        _ = handle.value
    with pytest.raises(SharedDataError, match="was freed") as caught:
        farm.submit(total, 0, handle).result()
    assert isinstance(caught.value, CallNotPicklable)
    handle.free()


def test_a_handle_that_is_collected_frees_it_after_its_tasks(farm: Farm) -> None:
    freed = follow_freed()
    handles = [share(table() + number) for number in range(3)]
    tokens = {handle.token for handle in handles}
    results = farm.map(total, range(50), itertools.repeat(handles[0]))
    more = total.map(range(50), table=handles[1])
    last = farm.submit(total, 1, handles[2])
    del handles
    gc.collect()
    assert [value for value, _ in results] == [x + TOTAL for x in range(50)]
    assert [value for value, _ in more] == [x + TOTAL + 10_000 for x in range(50)]
    assert last.result() == (1 + TOTAL + 20_000, False)
    del results, more, last
    gc.collect()
    assert tokens <= set(freed)


def test_a_long_job_keeps_nothing_of_what_it_has_freed() -> None:
    mine = follow_freed()
    with testing.farm(2) as farm:
        for number in range(100):
            with share(np.arange(4) + number) as handle:
                pass
        assert len(mine) == len(farm._master.shared_data.freed) == 100
        assert mine[-1] == handle.token
        assert farm.submit(abs, -1).result() == 1
        assert not farm._master.shared_data.freed


def test_a_handle_of_an_initializer_lasts_as_long_as_its_farm() -> None:
    kept: list[Any] = []
    with Farm(initializer=kept.append, initargs=(share(table()),)) as farm:
        gc.collect()
        assert farm.submit(len, "abc").result() == 3


def test_a_task_cannot_share(farm: Farm) -> None:
    with pytest.raises(UsageError, match=r"call taskfarm\.share in the job itself"):
        share_in_task.submit().result()


def test_a_result_may_be_a_handle(farm: Farm) -> None:
    handle = share(table())
    assert farm.submit(lambda: handle).result() is handle


def test_what_cannot_be_pickled_is_refused() -> None:
    with pytest.raises(CallNotPicklable, match="the shared lock cannot be pickled"):
        share(threading.Lock())
    with pytest.raises(ValueError, match='"host" or "worker"'):
        build(list, per="rank")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="callable"):
        build(3)  # type: ignore[arg-type]


def test_shared_data_waits_for_no_farm() -> None:
    handle: Shared[Any] = share(table())
    with testing.farm(workers=2) as farm:
        assert farm.submit(total, 0, handle).result() == (TOTAL, False)
    with Farm() as farm:
        assert farm.submit(total, 0, handle).result() == (TOTAL, False)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(handle)).value, table())


@pytest.mark.parametrize("after", range(0, 12, 3))
def test_a_worker_that_dies_changes_no_value(after: int) -> None:
    handle = share(table())
    with testing.farm(workers=3, seed=after, faults=[testing.Dies(2, after=after)]) as farm:
        found = list(farm.map(total, range(40), itertools.repeat(handle), chunksize=2))
    assert found == [(x + TOTAL, False) for x in range(40)]


def made(path: str, size: int = 3) -> dict[str, Any]:
    with open(path, "a") as file:
        file.write("made\n")
    return {"w": np.arange(size)}


@pytest.mark.parametrize("per", ["host", "worker"])
def test_what_is_built_is_built_once_where_it_is_used(
    tmp_path: Path, open_farm: Callable[[], Farm], per: Any
) -> None:
    path = tmp_path / "calls"
    with open_farm() as farm:
        handle = build(made, str(path), size=5, per=per)
        assert not path.exists()
        found = list(farm.map(key_of, itertools.repeat(handle, 30), itertools.repeat("w"), chunksize=1))
        assert all(list(one) == [0, 1, 2, 3, 4] for one in found)
        calls = len(path.read_text().split())
        assert calls <= (1 if per == "host" else farm.num_workers)
        assert list(handle.value["w"]) == [0, 1, 2, 3, 4]
        assert handle.value["w"].flags.writeable == (per == "worker")


def test_a_build_that_fails_fails_the_tasks_that_need_it(
    tmp_path: Path, open_farm: Callable[[], Farm]
) -> None:
    missing = tmp_path / "missing" / "file"
    with open_farm() as farm:
        handle = build(made, str(missing))
        found = [farm.submit(key_of, handle, "w").exception() for _ in range(3)]
        assert all(isinstance(error, BuildFailed) for error in found)
        assert "FileNotFoundError" in str(found[0])
        assert farm.submit(key_of, {"w": 1}, "w").result() == 1
        with pytest.raises(BuildFailed, match="FileNotFoundError"):
            _ = handle.value


def test_what_a_host_cannot_share_says_what_to_do(farm: Farm) -> None:
    handle = build(threading.Lock)
    with pytest.raises(BuildFailed, match='per="worker"'):
        farm.submit(kind_of, handle).result()
    assert farm.submit(kind_of, build(threading.Lock, per="worker")).result() == "lock"


def test_a_build_may_use_shared_data(farm: Farm) -> None:
    handle = build(np.multiply, share(table()), 2)
    assert farm.submit(total, 0, handle).result() == (2 * TOTAL, False)


def test_what_a_build_is_given_is_as_it_was(farm: Farm) -> None:
    array = table()
    handle = build(np.multiply, array, 2)
    array[:] = 0
    assert farm.submit(total, 0, handle).result() == (2 * TOTAL, False)


def test_errors_are_of_taskfarm() -> None:
    assert issubclass(SharedDataError, TaskFarmError)
    assert issubclass(BuildFailed, SharedDataError)
