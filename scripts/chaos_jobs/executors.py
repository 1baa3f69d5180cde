"""Several executors at a time, opened and closed at random: each gives its own results."""

import os
import random
import sys

from taskfarm import Farm
from taskfarm.compat import MPIPoolExecutor, Pool

chance = random.Random(int(sys.argv[1]))
most = int(sys.argv[2])


def prepare(number):
    os.environ[f"PREPARED_{number}"] = "1"


def work(number, x):
    return f"PREPARED_{number}" in os.environ, number, x


def results(number, executor, count):
    pairs = [(number, x) for x in range(count)]
    if isinstance(executor, Pool):
        pending = executor.starmap_async(work, pairs)
        return number, pending.get, count
    if chance.random() < 0.5:
        futures = [executor.submit(work, *pair) for pair in pairs[:300]]
        return number, lambda: [future.result() for future in futures], len(futures)
    drawn = executor.map(work, [number] * count, range(count))
    return number, lambda: list(drawn), count


def check(pending):
    for number, get, count in pending:
        assert get() == [(True, number, x) for x in range(count)]


def close(number, executor, pending):
    own = [entry for entry in pending if entry[0] == number]
    if chance.random() < 0.5:
        check(own)
        own = []
    if isinstance(executor, Pool):
        executor.close()
        executor.join()
    else:
        executor.shutdown()
    check(own)
    return [entry for entry in pending if entry[0] != number]


with open("started", "w"):
    pass
executors, pending, opened = {}, [], 0
for _ in range(chance.randint(5, 60)):
    action = chance.random()
    if not executors or (action < 0.2 and len(executors) < 5):
        opened += 1
        kind = chance.choice([Farm, Pool, MPIPoolExecutor])
        executors[opened] = kind(initializer=prepare, initargs=(opened,))
    elif action < 0.4:
        number = chance.choice(list(executors))
        pending = close(number, executors.pop(number), pending)
    elif action < 0.8:
        number = chance.choice(list(executors))
        pending.append(results(number, executors[number], chance.randint(1, most)))
    else:
        chance.shuffle(pending)
        check(pending)
        pending = []
for number, executor in executors.items():
    pending = close(number, executor, pending)
print("right:", opened, "executors")
