"""Iterables of a map that raise, lie about their length, use the farm, or are never consumed to the end."""

from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from taskfarm import Farm
from taskfarm.errors import UsageError


class BadItem:
    """An item that raises when `starmap` unpacks it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (7, TypeError),
        (BadItem(LookupError()), LookupError),
        (BadItem(StopIteration()), RuntimeError),
        (BadItem(SystemExit()), SystemExit),
        (BadItem(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_bad_item_midway(farm: Farm, unordered: bool, bad: Any, expected: type[BaseException]) -> None:
    other = farm.submit(abs, -9)
    results = farm.starmap(max, (bad if x == 25 else (x, x) for x in range(40)), unordered=unordered)
    assert other.result() == 9
    seen: list[int] = []
    with pytest.raises(expected):
        seen.extend(results)
    assert sorted(seen) == list(range(25))
    assert list(results) == []


@pytest.mark.parametrize("raised", [ValueError(), SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_generator_that_raises(farm: Farm, raised: BaseException) -> None:
    def arguments() -> Iterator[int]:
        yield from range(10)
        raise raised

    seen: list[int] = []
    with pytest.raises(type(raised)):
        seen.extend(farm.map(abs, arguments()))
    assert seen == list(range(10))


class Sized:
    """100 items, whatever its length says."""

    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        self.length += 3
        return self.length  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[int]:
        return iter(range(100))


@pytest.mark.parametrize("length", [0, 40, 97, 5000, -1, -50, 10**30, TypeError(), ValueError()])
def test_length_that_is_wrong(farm: Farm, length: Any) -> None:
    assert list(farm.map(abs, Sized(length))) == list(range(100))
    assert list(farm.map(max, Sized(length), Sized(5))) == list(range(100))
    assert farm._master.undrawn == 0


def test_iterable_that_uses_the_farm_while_it_is_drawn(farm: Farm) -> None:
    def arguments() -> Iterator[int]:
        for x in range(100):
            yield farm.submit(abs, -x).result() + sum(farm.map(abs, range(3)))

    assert list(farm.map(abs, arguments())) == [x + 3 for x in range(100)]
    futures = [farm.submit(abs, -x) for x in range(50)]
    assert list(farm.map(abs, (future.result() for future in futures))) == list(range(50))


def touch(path: str) -> None:
    Path(path).touch()


def test_maps_that_nobody_consumes_run_to_their_end(open_farm: Callable[[], Farm], tmp_path: Path) -> None:
    with open_farm() as farm:
        farm.map(touch, (str(tmp_path / f"a{x}") for x in range(300)))
        kept = farm.map(abs, (x for x in range(100_000)))
    assert len(list(tmp_path.iterdir())) == 300
    assert list(kept) == list(range(100_000))


def test_what_was_not_drawn_is_told(
    open_farm: Callable[[], Farm], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_farm() as farm:
        endless = farm.map(abs, count())
        assert list(islice(endless, 10)) == list(range(10))
        bounded = farm.map(abs, range(10), buffersize=4)
        for x in farm.map(abs, count()):
            if x == 5:
                break
    told = capsys.readouterr().err.splitlines()
    assert sum("the rest of its arguments was not drawn" in line for line in told) == 2
    for results in (endless, bounded):
        with pytest.raises(UsageError, match="before this map had drawn all its arguments"):
            list(results)
