"""What travels: arrays of all sizes both ways, messages beyond 2 GiB, maps, futures, timeouts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]

MANY_ARRAYS = """
import random
import numpy as np
from taskfarm import Farm

def twice(a):
    assert a.flags.writeable
    a *= 2
    return a, a[::2].copy()

random.seed(3)
sizes = [random.choice([0, 1, 1000, 8191, 8192, 8193, 100_000, 2_000_000]) for _ in range(150)]
arrays = [np.arange(n, dtype=float) for n in sizes]
with Farm() as farm:
    for options in ({}, {"chunksize": 7}, {"buffersize": 5}):
        for a, (b, c) in zip(arrays, farm.map(twice, arrays, **options)):
            assert np.array_equal(b, 2 * a) and np.array_equal(c, b[::2])
            b += 1
    futures = [farm.submit(twice, a) for a in arrays]
    for a, f in reversed(list(zip(arrays, futures))):
        assert np.array_equal(f.result()[0], 2 * a)
print("all equal")
"""


def test_arrays_there_and_back(run: Run) -> None:
    code, out, err = run(MANY_ARRAYS, 4)
    assert code == 0, err
    assert out == "all equal\n"


HUGE = """
import numpy as np
from taskfarm import task

@task
def next_of(a):
    a += 1
    return a

n = 2**31 + 4097
a = np.zeros(n, dtype=np.uint8)
a[-1] = 41
b = next_of.submit(a).result()
print(b.nbytes == n, int(b[0]), int(b[2**31]), int(b[-1]), int(a[-1]))
"""


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(_free_bytes() < 14 << 30, reason="needs 14 GiB of free memory")
def test_messages_beyond_2_gib(start: Callable[..., Job]) -> None:
    code, out, err = start(HUGE, 2).end(timeout=240)
    assert code == 0, err
    assert out == "True 1 1 42 41\n"


PIECES = """
import sys, time
from mpi4py import MPI
from taskfarm.protocol.messages import Parcel
from taskfarm.transport.mpi import MpiTransport

transport = MpiTransport(MPI.COMM_WORLD, piece=int(sys.argv[1]), credit=int(sys.argv[2]))
sizes = [0, 1, 999, 1000, 1001, 65_536, 65_537, 200_001]

def content(size, salt):
    return bytes((salt + i) % 251 for i in range(size))

def parcels(rank):
    for n, size in enumerate(sizes):
        buffers = [memoryview(content(s, n + rank)) for s in sizes[: n % 4]]
        yield Parcel(n, content(size, n), buffers)

if transport.rank:
    for parcel in parcels(transport.rank):
        transport.send(0, parcel)
    while transport.unsent():
        if not transport.poll():
            time.sleep(1e-4)
else:
    expected = {rank: list(parcels(rank)) for rank in range(1, transport.size)}
    while any(expected.values()):
        received = transport.poll()
        if received:
            expected_parcel, got = expected[received.source].pop(0), received.parcel
            assert (got.tag, bytes(got.head)) == (expected_parcel.tag, bytes(expected_parcel.head))
            assert [bytes(b) for b in got.buffers] == [bytes(b) for b in expected_parcel.buffers]
        else:
            time.sleep(1e-4)
    print("in order and whole")
transport.close()
"""


@pytest.mark.parametrize(
    ("piece", "credit"), [(1000, 1 << 30), (1 << 30, 1 << 30), (1 << 30, 70_000), (1000, 1)]
)
def test_transport_keeps_order_and_content(python: Path, tmp_path: Path, piece: int, credit: int) -> None:
    (tmp_path / "pieces.py").write_text(PIECES)
    mpiexec = str(python.with_name("mpiexec"))
    words = [mpiexec, "-n", "4", str(python), "pieces.py", str(piece), str(credit)]
    code, out, err = Job(Path("/usr/bin/env"), words, tmp_path).end()
    assert code == 0, err
    assert out == "in order and whole\n"


FUTURES = """
import itertools
import threading
import time
from concurrent.futures import CancelledError
from taskfarm import Farm, as_completed, wait

def square(x):
    return x * x

def naps(seconds):
    time.sleep(seconds)
    return seconds

with Farm() as farm:
    results = farm.map(square, itertools.count())
    assert list(itertools.islice(results, 10_000)) == [i * i for i in range(10_000)]
    drawn = []
    bounded = farm.map(square, (drawn.append(i) or i for i in itertools.count()), buffersize=20)
    for i in range(200):
        assert next(bounded) == i * i and len(drawn) <= i + 21
    assert sorted(farm.map(square, range(5000), unordered=True)) == [i * i for i in range(5000)]
    assert list(farm.map(naps, [0.3, 0.0, 0.0], unordered=True, chunksize=1))[-1] == 0.3

    for waiting in (lambda: farm.submit(naps, 1.0).result(timeout=0.1),
                    lambda: list(farm.map(naps, [1.0], timeout=0.1)),
                    lambda: list(as_completed([farm.submit(naps, 1.0)], timeout=0.1))):
        try:
            waiting()
            raise SystemExit("no TimeoutError")
        except TimeoutError:
            pass
    assert not wait([farm.submit(naps, 0.5)], timeout=0.01).done

    slow = [farm.submit(naps, 0.2) for _ in range(6)]
    assert slow[-1].cancel()
    assert slow[0].result() == 0.2 and not slow[0].cancel()
    try:
        slow[-1].result()
    except CancelledError:
        print("cancelled")

    called = threading.Event()
    farm.submit(square, 5).add_done_callback(lambda f: called.set())
    assert called.wait(10)  # only the background thread runs the event loop here

    sums = []
    threads = [threading.Thread(target=lambda: sums.append(sum(farm.map(square, range(1000)))))
               for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(sums == [332833500] * 3)
"""


def test_futures_and_maps(run: Run) -> None:
    code, out, err = run(FUTURES, 3)
    assert code == 0, err
    assert out == "cancelled\nTrue\n"
