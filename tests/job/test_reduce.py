"""`reduce` is functools.reduce over a map, but for the brackets."""

import functools
import math
import operator
from collections.abc import Iterator
from itertools import count, islice, repeat
from random import Random
from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, current, rng, task, testing
from taskfarm.master.master import Master
from taskfarm.protocol.messages import Results


def text(n: int) -> str:
    return f"{n},"


def wild(n: int) -> float:
    random = Random(n)
    return random.uniform(-1, 1) * 10.0 ** random.randint(-12, 12)


def fails(n: int) -> int:
    if n in (50, 333):
        raise ValueError(n)
    return n


@task
def power(base: int, exponent: int = 1) -> int:
    return int(base**exponent)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 64, 1000])
def test_of_an_operation_that_does_not_commute(farm: Farm, length: int) -> None:
    expected = functools.reduce(operator.add, map(text, range(length)), "start ")
    assert farm.reduce(text, operator.add, range(length), initial="start ") == expected


def test_without_calls(farm: Farm) -> None:
    with pytest.raises(TypeError, match="empty iterable with no initial value"):
        farm.reduce(text, operator.add, [])
    assert farm.reduce(text, operator.add, [], initial="x") == "x"
    assert farm.reduce(text, operator.add, [], initial=None) is None  # type: ignore[arg-type]


def test_floats_are_the_same_for_any_number_of_workers() -> None:
    found = set()
    for workers in (1, 2, 7, 16):
        for chunksize in (None, 37):
            with testing.farm(workers, seed=workers) as farm:
                found.add(farm.reduce(wild, operator.add, range(700), chunksize=chunksize))
    assert len(found) == 1
    exact = math.fsum(map(wild, range(700)))
    assert found.pop() == pytest.approx(exact, rel=1e-12)


def test_a_batch_leaves_as_many_values_as_its_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[tuple[int, int]] = []
    handle = Master._handle

    def counted(master: Master, worker: int, message: Any) -> None:
        if isinstance(message, Results):
            batches.extend((one.count, len(one.covers or ())) for one in message.parts)
        handle(master, worker, message)

    monkeypatch.setattr(Master, "_handle", counted)
    for workers in (1, 3, 8):
        with testing.farm(workers, seed=workers) as farm:
            assert farm.reduce(abs, operator.add, range(30_000)) == sum(range(30_000))
    assert max(batches)[0] > 500
    assert [
        (count, values) for count, values in batches if values > max(1, math.ceil(math.log2(count)))
    ] == []


def test_random_numbers_are_the_same_for_any_number_of_workers() -> None:
    found = set()
    for workers in (1, 5):
        with testing.farm(workers), Farm(seed=3) as farm:
            found.add(farm.reduce(lambda _: float(rng().random()), operator.add, range(200)))
    assert len(found) == 1


def test_many_equal_calls_and_several_iterables(farm: Farm) -> None:
    assert farm.reduce(abs, operator.add, repeat(-2, 10_000)) == 20_000
    assert farm.reduce(pow, operator.add, range(10), repeat(2)) == 285


def test_a_task_with_constants(farm: Farm) -> None:
    with farm:
        assert power.reduce(operator.add, range(10), exponent=2) == 285
        assert power.reduce(max, [3, 9, 4], chunksize=2) == 9
        with pytest.raises(TypeError, match="exponnent"):
            power.reduce(operator.add, range(10), exponnent=2)


def test_the_first_failure_by_position_is_raised(farm: Farm) -> None:
    with pytest.raises(ValueError, match="50") as raised:
        farm.reduce(fails, operator.add, range(1000))
    assert raised.value.args == (50,)
    assert farm.submit(abs, -3).result() == 3


def test_values_in_the_place_of_failures(farm: Farm) -> None:
    replaced = task(on_error=lambda error: 0)(fails)
    assert farm.reduce(replaced, operator.add, range(1000)) == sum(range(1000)) - 50 - 333


def test_an_operation_that_raises(farm: Farm) -> None:
    def combine(left: int, right: int) -> int:
        if left + right > 1000:
            raise OverflowError(left + right)
        return left + right

    with pytest.raises(OverflowError):
        farm.reduce(abs, combine, range(1000))
    assert farm.reduce(abs, combine, range(10)) == 45


def test_iterables_that_raise_or_have_no_end(farm: Farm) -> None:
    def numbers() -> Iterator[int]:
        yield from range(10)
        raise LookupError("no more")

    with pytest.raises(LookupError):
        farm.reduce(abs, operator.add, numbers())
    with pytest.raises(ValueError, match="50"):
        farm.reduce(fails, operator.add, count())
    assert farm.reduce(abs, operator.add, islice(count(), 100)) == 4950


def test_results_that_cannot_be_pickled(farm: Farm) -> None:
    with pytest.raises(Exception, match="pickle"):
        farm.reduce(lambda n: (n, Random(n), (x for x in ())), lambda left, right: left, range(50))


def test_arrays_are_added_in_place_but_arguments_are_not_changed(farm: Farm) -> None:
    arrays = [np.full(10_000, float(n)) for n in range(20)]
    total = farm.reduce(lambda a: a, np.add, arrays)
    assert total.tolist() == [190.0] * 10_000
    assert [a[0] for a in arrays] == list(range(20))


def turned(angle: float) -> Any:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def test_matrices_are_multiplied_in_order(farm: Farm) -> None:
    assert np.allclose(farm.reduce(turned, np.matmul, np.linspace(0, 1, 33)), turned(16.5))
    skewed = [np.array([[1, n], [0, 2]]) for n in range(20)]
    product = functools.reduce(np.matmul, skewed)
    assert np.array_equal(farm.reduce(np.array, np.matmul, skewed), product)


kept = np.ones(5)


def test_an_array_that_a_task_keeps_is_not_changed() -> None:
    with testing.farm(1) as farm:
        assert farm.reduce(lambda _: kept, np.add, range(64)).tolist() == [64.0] * 5
        assert farm.submit(lambda: kept.tolist()).result() == [1.0] * 5


def test_in_child_processes() -> None:
    with testing.farm(2) as farm:
        assert farm.reduce(task(isolate=True)(text), operator.add, range(20)) == "".join(
            map(text, range(20))
        )


def test_timeout_and_misuse() -> None:
    silent = testing.Silent(1)
    silent.silent = True
    with testing.farm(1, faults=[silent]) as farm:
        with pytest.raises(TimeoutError):
            farm.reduce(abs, operator.add, range(10), timeout=5)
        silent.silent = False
        assert farm.submit(lambda: power.reduce(operator.add, range(5))).result() == 10
        with pytest.raises(ValueError, match="chunksize"):
            farm.reduce(abs, operator.add, [1], chunksize=0)


@pytest.mark.parametrize("retries", [0, 2])
def test_failed_calls_are_retried(retries: int) -> None:
    def flaky(n: int) -> str:
        if n % 7 == 0 and current().attempt <= 2:
            raise ValueError(n)
        return text(n)

    with testing.farm(3, seed=2) as farm:
        if retries:
            expected = "".join(map(text, range(100)))
            assert farm.reduce(task(retries=retries)(flaky), operator.add, range(100)) == expected
        else:
            with pytest.raises(ValueError, match="0"):
                farm.reduce(flaky, operator.add, range(100))
