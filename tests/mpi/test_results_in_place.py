"""`map_array` on ranks: blocks are received in their place, wherever that is safe, and nowhere else."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

JOB = """
import sys, time
import numpy as np
from taskfarm import Farm, task
from taskfarm.job import arrays

SHAPE = (64, 128, 128)
copied = []
write_into = arrays.write_into

def counted(out, index, block, what):
    copied.append(what)
    write_into(out, index, block, what)

arrays.write_into = counted

def copies():
    found = len(copied)
    copied.clear()
    return found

@task(retries=2)
def plus_one(block, fail=False):
    return block + 1

def changing(block):
    return (block + 1).astype(np.float64 if block.flat[0] % 2 else np.int64)

def fixed(block):
    found = block + 1
    found.flags.writeable = False
    return found

def slow(block):
    time.sleep(0.3 if block.flat[0] > 40 else 0.0)
    return block + 1

def part(block):
    return block[:, :64] + 1 if block.flat[0] == 30 else block + 1

if __name__ == "__main__":
    image = np.zeros(SHAPE) + np.arange(64.0)[:, None, None]
    expected = image + 1

    out = np.empty(SHAPE)
    assert plus_one.map_array(image, rows=2, out=out) is out
    assert np.array_equal(out, expected)
    print("into out", copies())

    assert np.array_equal(plus_one.map_array(image, rows=2), expected)
    # Those that arrived before the first one are copied.
    copies()

    # The last block is shorter.
    out[:] = 0
    plus_one.map_array(image, rows=5, out=out)
    assert np.array_equal(out, expected)
    print("in unequal blocks", copies())

    # A block whose worker is lost while it sends must still be there to be sent again.
    same = image.copy()
    plus_one.map_array(same, rows=2, out=same)
    assert np.array_equal(same, expected)
    shifted = np.zeros((65, *SHAPE[1:]))
    shifted[:-1] = image
    plus_one.map_array(shifted[:-1].copy(), rows=2, out=shifted[1:])
    assert np.array_equal(shifted[1:], expected)
    print("over the arguments", copies())

    # Same number of bytes, other types and layouts.
    farm = Farm()
    for other in (
        np.empty(SHAPE, np.int64),
        np.empty(SHAPE, ">f8"),
        np.empty(SHAPE, order="F"),
        np.ma.masked_array(np.empty(SHAPE), mask=True),
        np.empty((*SHAPE, 2))[..., 0],
    ):
        whole = image.astype(np.int64) if other.dtype == np.int64 else image
        farm.map_array(plus_one, whole, rows=4, out=other)
        assert np.array_equal(np.asarray(other), expected)
        assert not np.ma.getmaskarray(other).any()
    print("elsewhere", copies())
    mixed = farm.map_array(changing, image, rows=1, out=np.empty(SHAPE))
    assert np.array_equal(mixed, expected)
    assert np.array_equal(farm.map_array(fixed, image, rows=2, out=np.empty(SHAPE)), expected)
    print("mixed", copies())
    stacked = np.empty(SHAPE)
    farm.map_array(plus_one, image, axis=1, rows=8, out=stacked)
    assert np.array_equal(stacked, expected)
    farm.map_array(task(isolate=True)(changing), image, rows=8, out=stacked)
    assert np.array_equal(stacked, expected)
    copies()

    # What has failed is over: nothing comes to be in the array later.
    for function, error in ((slow, TimeoutError), (part, ValueError)):
        out = np.empty(SHAPE)
        try:
            farm.map_array(function, image, rows=2, out=out, timeout=0.2 if function is slow else None)
        except error as caught:
            print(type(caught).__name__, getattr(caught, "__notes__", []))
        out[:] = -1
        list(farm.map(time.sleep, [0.01] * 8, chunksize=1))
        time.sleep(0.2)
        assert (out == -1).all()
"""

PRINTED = """into out 0
in unequal blocks 0
over the arguments 32
elsewhere 64
mixed 64
TimeoutError []
ValueError []
"""


def test_results_are_received_where_they_belong(run: Run) -> None:
    code, out, err = run(JOB, 3)
    assert code == 0, err
    assert out == PRINTED
