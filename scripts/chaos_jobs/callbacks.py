"""Chains of callbacks that submit the next task; some callbacks raise. The block waits for all of them."""

import logging
import random
import sys

from taskfarm import Farm

logging.disable(logging.CRITICAL)
chance = random.Random(int(sys.argv[1]))
lengths = [chance.choice([1, 10, 500, chance.randint(1, 3000)]) for _ in range(chance.randint(1, 8))]
raised = [ValueError, ValueError, SystemExit, KeyboardInterrupt]
surfaced = None
often = chance.choice([0, 0, 0.001, 0.05])
done = [0] * len(lengths)
ended = []


def work(x):
    return x


def follow(chain):
    def callback(future):
        done[chain] = future.result()
        if done[chain] < lengths[chain]:
            farm.submit(work, done[chain] + 1).add_done_callback(callback)
        else:
            ended.append(chain)
        if chance.random() < often:
            raise chance.choice(raised)("of a callback")

    return callback


try:
    with Farm() as farm:
        with open("started", "w"):
            pass
        for chain in range(len(lengths)):
            farm.submit(work, 1).add_done_callback(follow(chain))
        if chance.random() < 0.5:
            while len(ended) < len(lengths):
                assert farm.submit(work, 5).result() == 5
except (SystemExit, KeyboardInterrupt) as error:
    # Of a callback that ran in this thread, as in the standard library.
    surfaced = error
if surfaced is None:
    assert done == lengths, (done, lengths)
elif str(surfaced) != "of a callback":
    raise surfaced
print("right: chains of", lengths, "" if surfaced is None else f"cut short by {surfaced!r}")
