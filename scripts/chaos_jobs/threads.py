"""Many threads submit and consume maps, also those of other threads, and switch after every step."""

import queue
import random
import sys
import threading

from taskfarm import Farm

seed, most = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
sys.setswitchinterval(10 ** chance.uniform(-6, -3))
errors = []
counted = []


def work(x):
    return x + 1


def make(farm, passed, seed):
    chance = random.Random(seed)
    try:
        for _ in range(chance.randint(1, 6)):
            count = chance.randint(1, most)
            kind = chance.randrange(4)
            if kind == 0:
                assert list(farm.map(work, range(count))) == list(range(1, count + 1))
            elif kind == 1:
                results = farm.map(work, iter(range(count)), unordered=True)
                assert sorted(results) == list(range(1, count + 1))
            elif kind == 2:
                count = min(count, 500)
                futures = [farm.submit(work, x) for x in range(count)]
                assert [future.result() for future in futures] == list(range(1, count + 1))
            else:
                passed.put((count, farm.map(work, range(count))))
                continue
            counted.append(count)
    except BaseException as error:
        errors.append(error)


def consume(passed):
    try:
        while (entry := passed.get()) is not None:
            count, results = entry
            assert list(results) == list(range(1, count + 1))
            counted.append(count)
    except BaseException as error:
        errors.append(error)


with Farm() as farm:
    with open("started", "w"):
        pass
    passed = queue.Queue()
    makers = [
        threading.Thread(target=make, args=(farm, passed, chance.random()), daemon=True)
        for _ in range(chance.randint(2, 12))
    ]
    consumers = [
        threading.Thread(target=consume, args=(passed,), daemon=True) for _ in range(chance.randint(1, 4))
    ]
    for thread in makers + consumers:
        thread.start()
    for thread in makers:
        thread.join()
    for _ in consumers:
        passed.put(None)
    for thread in consumers:
        thread.join()
if errors:
    raise errors[0]
print("right:", len(makers), "threads,", sum(counted), "tasks")
