"""Ctrl-C that the job catches, at any moment, loses nothing."""

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from taskfarm import Farm, interrupts
from taskfarm.errors import UsageError


def square(x: int) -> int:
    return x * x


def pair(x: int) -> list[Any]:
    return [x, str(x)]


def insist(function: Callable[[], object], depth: int = 6) -> None:
    """Call a function again and again until it returns; an interruption of one `except` meets the next."""
    while True:
        try:
            if depth:
                insist(function, depth - 1)
            else:
                function()
        except KeyboardInterrupt:
            continue
        return


class Storm:
    """Interrupts the main thread every few milliseconds, again and again, while it submits and waits."""

    def __init__(self, farm: Farm, count: int) -> None:
        self.futures: dict[int, Future[Any]] = {}
        self._farm = farm
        self._main = threading.get_ident()
        self._count = count
        self._deadline = time.monotonic() + 200
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    @property
    def over(self) -> bool:
        return self.sent >= self._count or time.monotonic() > self._deadline

    def _run(self) -> None:
        # Otherwise this thread would wait for the interpreter while the main thread is busy.
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        while not self.over:
            time.sleep(0.003 * random.random())
            signal.pthread_kill(self._main, signal.SIGINT)
            self.sent += 1
        sys.setswitchinterval(before)

    def work(self) -> None:
        if not self.sent and not self.thread.is_alive():
            self.thread.start()
        while not self.over:
            x = len(self.futures)
            self.futures[x] = self._farm.submit(pair if x % 2 else square, x)
            if x % 20 == 0:
                self.futures[x].result()
        self.thread.join()
        # What was postponed comes while this sleeps, on a busy machine later.
        time.sleep(0.05)
        while interrupts.pending():
            time.sleep(0.01)


def test_storm_of_interruptions(farm: Farm) -> None:
    maps = [farm.map(square, (x for x in range(20_000))), farm.map(pair, range(2_000))]
    storm = Storm(farm, 300)
    insist(storm.work)
    assert storm.sent == 300
    assert [list(results) for results in maps] == [
        list(map(square, range(20_000))),
        list(map(pair, range(2_000))),
    ]
    assert len(storm.futures) > 50
    for x, future in storm.futures.items():
        assert future.result() == (pair if x % 2 else square)(x)


def test_task_of_a_serial_run_that_was_interrupted_runs_again() -> None:
    with Farm() as farm:
        results = farm.map(InterruptsOnce(), range(10))
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            seen.extend(results)
        seen.extend(results)
    assert seen == list(range(10))


class InterruptsOnce:
    """A task that interrupts its process once."""

    interrupted = False

    def __call__(self, x: int) -> int:
        if x == 3 and not InterruptsOnce.interrupted:
            InterruptsOnce.interrupted = True
            signal.raise_signal(signal.SIGINT)
        return x


def test_interrupted_callback_is_over_and_the_others_run(farm: Farm) -> None:
    seen: list[Any] = []
    future = farm.submit(square, 2)

    def interrupt(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    def add_and_wait() -> None:
        future.add_done_callback(interrupt)
        future.result()
        farm.submit(square, 3).result()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        add_and_wait()
    future.add_done_callback(seen.append)
    farm.submit(square, 3).result()
    assert seen == [future]


@pytest.mark.parametrize("seconds", [0, 3])
def test_iterable_that_was_interrupted_goes_on_or_says_that_it_cannot(farm: Farm, seconds: int) -> None:
    """A short one is not even interrupted; one that blocks is, and a generator cannot go on then."""

    def arguments() -> Iterator[int]:
        yield from range(100)
        signal.raise_signal(signal.SIGINT)
        time.sleep(seconds)
        yield from range(100, 200)

    seen: list[int] = []
    results: list[Iterator[int]] = []

    def consume() -> None:
        if not results:
            results.append(farm.map(square, arguments()))
        seen.extend(results[0])

    with pytest.raises(KeyboardInterrupt):
        consume()
    if seconds:
        with pytest.raises(UsageError, match="map again what is missing"):
            consume()
    else:
        consume()
    assert seen == list(map(square, range(100 if seconds else 200)))


def test_interruption_comes_before_the_error_of_an_iterable(farm: Farm) -> None:
    def arguments() -> Iterator[int]:
        yield 1
        signal.raise_signal(signal.SIGINT)
        raise ValueError("its own")

    results: list[Iterator[int]] = []

    def consume() -> list[int]:
        if not results:
            results.append(farm.map(square, arguments()))
        return list(results[0])

    with pytest.raises(KeyboardInterrupt):
        consume()
    with pytest.raises(ValueError, match="its own"):
        consume()


def test_handler_of_the_interpreter_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Farm() as farm:
        farm.submit(square, 2).result()
    assert signal.getsignal(signal.SIGINT) is before
