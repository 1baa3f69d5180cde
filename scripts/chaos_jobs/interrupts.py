"""Submits in a storm of KeyboardInterrupt and catches them all, as a notebook does: nothing may be lost."""

import contextlib
import os
import random
import sys
from concurrent.futures import CancelledError, wait

from taskfarm import Farm

chance = random.Random(int(sys.argv[1]))


def work(x):
    return x * 3


def step(farm, futures):
    kind = chance.randrange(4)
    count = chance.randint(1, 3000)
    if kind == 0:
        assert list(farm.map(work, range(count))) == [3 * x for x in range(count)]
    elif kind == 1:
        assert sorted(farm.map(work, range(count), unordered=True)) == [3 * x for x in range(count)]
    elif kind == 2:
        for x in range(min(count, 300)):
            futures.append((x, farm.submit(work, x)))
    else:
        x = chance.randrange(1000)
        assert farm.submit(work, x).result() == 3 * x


def insist(function, depth=6):
    """Call a function until the storm is over; an interruption of one `except` meets the next."""
    global caught
    while not os.path.exists("calm"):
        try:
            insist(function, depth - 1) if depth else function()
        except KeyboardInterrupt:
            caught += 1


with Farm() as farm:
    futures = []
    caught = 0
    begun = False

    def work_on():
        global begun
        if not begun:
            begun = True
            with open("started", "w"):
                pass
        step(farm, futures)

    insist(work_on)
    _, missing = wait([future for _, future in futures], timeout=30)
    assert not missing, f"{len(missing)} of {len(futures)} futures never ended"
    for x, future in futures:
        with contextlib.suppress(CancelledError):
            assert future.result() == 3 * x
    assert list(farm.map(work, range(10_000))) == [3 * x for x in range(10_000)]
print("right:", caught, "interrupts caught,", len(futures), "futures")
