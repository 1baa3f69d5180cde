"""The standard streams of rank 0 and of workers are full, closed or without a reader: the job goes on."""

import contextlib
import logging
import os
import random
import sys
import traceback

from taskfarm import Farm

chance = random.Random(int(sys.argv[1]))
count = int(sys.argv[2])


def spoil(descriptor, how):
    if how == "closed":
        os.close(descriptor)
    elif how == "full":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, descriptor)
    elif how == "no reader":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, descriptor)


def talk(x):
    # Where the output of tasks is not captured, a spoilt stream raises in the task itself.
    with contextlib.suppress(OSError, ValueError):
        print("task", x)
    with contextlib.suppress(OSError, ValueError):
        print("task", x, file=sys.stderr)
    logging.getLogger("chaos").warning("task %d", x)
    return x


def main():
    with Farm() as farm:
        with open("started", "w"):
            pass
        spoil(1, ways[0])
        spoil(2, ways[1])
        if chance.random() < 0.5:
            farm.submit(spoil, 1, ways[2]).result()
            farm.submit(spoil, 2, ways[3]).result()
        assert list(farm.map(talk, range(count))) == list(range(count))


ways = [chance.choice(["closed", "full", "no reader", "good"]) for _ in range(4)]
said = f"right: {', '.join(ways)}"
try:
    main()
except BaseException:
    said = f"{ways}\n{traceback.format_exc()}"
with open("result", "w") as file:
    file.write(said)
# What is left in the buffers is the job's own loss, not the farm's.
sys.stdout = sys.stderr = None
