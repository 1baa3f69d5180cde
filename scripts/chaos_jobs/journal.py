"""Sums up tasks with a journal; FACTOR is changed between runs."""

import sys
import time

from taskfarm import Farm

FACTOR = 1
tasks = int(sys.argv[1])


def work(x):
    time.sleep(0.0002)
    return x * FACTOR


with Farm() as farm:
    with open("started", "w"):
        pass
    print("total", sum(farm.map(work, range(tasks), unordered=True)))
