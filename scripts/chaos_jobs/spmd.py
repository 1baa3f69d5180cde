"""Blocks again and again in a program that all ranks run; started by plain mpiexec."""

import os
import random
import signal
import sys
import threading
import time

from mpi4py import MPI

from taskfarm import Farm
from taskfarm.compat import MPICommExecutor

seed, blocks = int(sys.argv[1]), int(sys.argv[2])
world = MPI.COMM_WORLD
rank, size = world.rank, world.size
same, different = random.Random(seed), random.Random(f"{seed}-{rank}")


def prepare(number):
    os.environ["NUMBER"] = str(number)


def work(x):
    return x, os.environ.get("NUMBER")


def check(results, number, prepared):
    for x, (result, seen) in enumerate(results):
        assert result == x
        assert not prepared or seen == str(number), (seen, number)


def use(farm, kind, count, number, prepared):
    """What the root does with its farm."""
    if kind == "map":
        check(farm.map(work, range(count)), number, prepared)
    elif kind == "futures":
        futures = [farm.submit(work, x) for x in range(min(count, 200))]
        check([future.result() for future in futures], number, prepared)
    elif kind != "nothing":
        farm.map(work, range(count))
    if kind == "raises":
        raise ZeroDivisionError


def interrupt_later(farm):
    """Send SIGINT to this rank while it is in the block, as the root or as a worker."""
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    if farm is not None:
        while True:
            list(farm.map(work, range(100)))


def block(number):
    kind = same.choice(["map", "futures", "not consumed", "raises", "nothing", "interrupted"])
    prepared = same.random() < 0.5
    options = {"initializer": prepare, "initargs": (number,)} if prepared else {}
    opens = same.choice([Farm.from_comm, MPICommExecutor])
    comm = world
    if same.random() < 0.3:
        comm = world.Split(rank % same.randint(1, 2), same.choice([-1, 1]) * rank)
    root, count = same.randrange(size) % comm.size, same.randint(1, 2000)
    interrupted = kind == "interrupted" and comm.rank == root and comm.size > 1
    if same.random() < 0.3:
        time.sleep(different.random() * 0.05)
    try:
        with opens(comm, root, **options) as farm:
            if interrupted:
                interrupt_later(farm)
            elif farm is not None:
                use(farm, kind, count, number, prepared)
    except ZeroDivisionError:
        assert kind == "raises"
    except KeyboardInterrupt:
        assert interrupted
    if comm is not world:
        comm.Free()


for number in range(blocks):
    block(number)
    if number % 20 == 0:
        assert world.allreduce(1) == size
world.Barrier()
if rank == 0:
    with open("result", "w") as file:
        file.write(f"right: {blocks} blocks on {size} ranks")
