"""Blocks of `Farm.from_comm` and `MPICommExecutor` in programs that all ranks run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(python: Path, tmp_path: Path) -> Run:
    """Run a program on some ranks with plain mpiexec."""

    def program(
        code: str, ranks: int, *arguments: str, words: tuple[str, ...] = ()
    ) -> tuple[int, str, str]:
        (tmp_path / "program.py").write_text(code)
        command = [str(python.with_name("mpiexec")), "-n", str(ranks), str(python), *words]
        return Job(Path("/usr/bin/env"), [*command, "program.py", *arguments], tmp_path).end(240)

    return program


BLOCKS = """
import os, random, threading, time
from mpi4py import MPI
from taskfarm import Farm
from taskfarm.compat import MPICommExecutor

world = MPI.COMM_WORLD
rank, size = world.rank, world.size
half = world.Split(rank % 2, rank)
same, different = random.Random(1), random.Random(rank)

def set_number(number):
    global current
    current = number
    os.environ["NUMBER"] = str(number)
    time.sleep(different.random() * 1e-3)

def get_number(x):
    return current

def empty(k):
    with Farm.from_comm(world):
        pass

def empty_with_initializer(k):
    with Farm.from_comm(world, k % size, initializer=set_number, initargs=(k,)):
        pass

def initializer(k):
    with Farm.from_comm(world, initializer=set_number, initargs=(k,)) as farm:
        if farm is not None:
            assert list(farm.map(get_number, range(9))) == [k] * 9

def late(k):
    time.sleep(different.random() * 0.02)
    with Farm.from_comm(world) as farm:
        assert farm is None or sum(farm.map(abs, range(100))) == 4950

def raises(k):
    try:
        with Farm.from_comm(world) as farm:
            if farm is not None:
                farm.submit(time.sleep, 1e-3)
                farm.map(abs, range(1000))
                raise KeyError(k)
    except KeyError:
        assert rank == 0

def not_consumed(k):
    with Farm.from_comm(world) as farm:
        if farm is not None:
            farm.map(abs, range(1000))
            futures = [farm.submit(abs, -i) for i in range(20)]
    if rank == 0:
        assert [future.result() for future in futures] == list(range(20))

def not_waited(k):
    farm = Farm.from_comm(world)
    if rank == 0:
        farm.submit(abs, -1)
        farm.shutdown(wait=False)

def fresh(k):
    comm = world.Split(0, -rank)
    with Farm.from_comm(comm) as farm:
        assert farm is None or (rank == size - 1 and farm.submit(abs, -k).result() == k)
    comm.Free()

def executor(k):
    with MPICommExecutor(world, root=k % size) as pool:
        pool.submit(abs, 1)  # ignored where it is None
        assert rank == k % size and sum(pool.map(abs, range(100))) == 4950

def halves(k):
    with Farm.from_comm(half, k % half.size) as farm:
        assert farm is None or sum(farm.map(abs, range(100))) == 4950

def large(k):
    with Farm.from_comm(world) as farm:
        if farm is not None:
            assert [len(x) for x in farm.map(bytes, [1_000_000] * 4)] == [1_000_000] * 4

def own_messages(k):
    request = world.isend((k, rank), (rank + 1) % size, tag=13)
    with Farm.from_comm(world) as farm:
        if farm is not None:
            future = farm.submit(abs, -k)
            assert world.recv(source=size - 1, tag=13) == (k, size - 1)
            assert future.result() == k
    if rank:
        assert world.recv(source=rank - 1, tag=13) == (k, rank - 1)
    request.wait()
    world.Barrier()
    assert not world.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)
    world.Barrier()

kinds = [empty, empty_with_initializer, initializer, late, raises, not_consumed]
kinds += [not_waited, fresh, executor, halves, large, own_messages]
for k in range(300):
    same.choice(kinds)(k)
    if k == 50:
        files = len(os.listdir("/proc/self/fd"))
assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, 1)
world.Barrier()
print(rank)
"""


def test_300_blocks(program: Run) -> None:
    code, out, err = program(BLOCKS, 4)
    assert (code, sorted("".join(out.split()))) == (0, ["0", "1", "2", "3"]), err
    assert "Traceback" not in err


INTERRUPTS = """
import os, signal, threading, time
from mpi4py import MPI
from taskfarm import Farm, current
from taskfarm.errors import TaskExited, WorkerLost

world = MPI.COMM_WORLD
rank, size = world.rank, world.size

def interrupt(where=None):
    if where is None or current().rank == where:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.02)

def interrupts_itself():
    raise KeyboardInterrupt

def later(seconds, ranks):
    if rank in ranks:
        threading.Timer(seconds, interrupt).start()

def block(work):
    try:
        with Farm.from_comm(world) as farm:
            if farm is not None:
                work(farm)
        return False
    except KeyboardInterrupt:
        return True
    finally:
        # Nothing is left of it, and all ranks come to the next one.
        with Farm.from_comm(world, initializer=abs, initargs=(1,)) as farm:
            assert farm is None or farm.num_workers == size - 1 and farm.submit(abs, -2).result() == 2

def one_leaves(farm):
    time.sleep(1)
    large = farm.map(len, [bytes(300_000)] * 20)
    assert sum(farm.map(abs, range(1000))) == 499500 and sum(large) == 6_000_000
    assert farm.num_workers == size - 2

def all_leave(farm):
    time.sleep(1)
    try:
        list(farm.map(abs, range(1000)))
    except WorkerLost as error:
        assert "it left: KeyboardInterrupt" in str(error)
    else:
        raise AssertionError

def in_a_task(farm):
    futures = [farm.submit(interrupt, 2) for _ in range(20)]
    assert any(isinstance(future.exception(), TaskExited) for future in futures)

def of_a_task(farm):
    assert all(isinstance(farm.submit(interrupts_itself).exception(), TaskExited) for _ in range(5))
    assert farm.num_workers == size - 1

def of_the_root(farm):
    later(0.2, [0])
    list(farm.map(abs, range(100_000_000)))

later(0.5, [2])
assert block(one_leaves) == (rank == 2)
later(0.5, range(1, size))
assert block(all_leave) == (rank > 0)
for _ in range(5):
    assert block(in_a_task) == (rank == 2)
assert not block(of_a_task)
for _ in range(3):
    assert block(of_the_root) == (rank == 0)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(rank)
"""


def test_interrupted_ranks_leave_in_order(program: Run) -> None:
    code, out, err = program(INTERRUPTS, 4)
    assert (code, sorted("".join(out.split()))) == (0, ["0", "1", "2", "3"]), err


ARGUMENTS = """
import sys
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
from taskfarm import Farm
from taskfarm.compat import MPICommExecutor
from taskfarm.errors import InitializerFailed, LaunchError, UsageError

def refused(error, *arguments, **options):
    try:
        Farm.from_comm(*arguments, **options)
    except error as raised:
        return str(raised)
    raise AssertionError("not refused")

assert "MPI is not running" in refused(UsageError, MPI.COMM_WORLD)
MPI.Init_thread(getattr(MPI, "THREAD_" + sys.argv[1]))
world = MPI.COMM_WORLD
rank, size = world.rank, world.size
assert "from 0 to 2" in refused(ValueError, world, 3) and "from 0 to 2" in refused(ValueError, world, -1)
assert "not None" in refused(TypeError, None)
half = world.Split(min(rank, 1))
inter = half.Create_intercomm(0, world, 1 if rank == 0 else 0)
assert "expecting an intracommunicator" in refused(ValueError, inter)

some = world.Split(0 if rank < 2 else MPI.UNDEFINED)
for open_block in (Farm.from_comm, MPICommExecutor):
    with open_block(some) as farm:
        assert (farm is not None) == (rank == 0)
with Farm.from_comm(MPI.COMM_SELF) as farm:
    assert farm.num_workers == 1 and sum(farm.map(abs, range(10))) == 45
with Farm.from_comm(world.Create_cart([size]), 1) as farm:
    assert farm is None or rank == 1 and sum(farm.map(abs, range(10))) == 45

if rank == 0:
    assert "initializer must be a callable" in refused(TypeError, world, initializer=5)
    assert "unexpected keyword" in refused(TypeError, world, bogus=1)
else:
    Farm.from_comm(world)
    Farm.from_comm(world)
with Farm.from_comm(world) as farm:
    if farm is not None:
        assert "serve another farm" in refused(UsageError, world)
        future = farm.submit(lambda: Farm.from_comm(None))
        assert "a task cannot open or use a Farm" in str(future.exception())
try:
    with Farm.from_comm(world, initializer=lambda: 1 / 0) as farm:
        if farm is not None:
            farm.submit(abs, 1).result()
except InitializerFailed:
    assert rank == 0
import taskfarm.worker.worker
if rank == 2:
    taskfarm.worker.worker.__version__ = "0.0.1"
try:
    with Farm.from_comm(world) as farm:
        if farm is not None:
            while True:
                farm.submit(abs, 1).result()
except LaunchError as error:
    assert rank == 0 and "rank 2" in str(error)
print(rank)
MPI.Finalize()
"""


@pytest.mark.parametrize("level", ["SINGLE", "SERIALIZED", "MULTIPLE"])
def test_arguments_and_thread_levels(program: Run, level: str) -> None:
    code, out, err = program(ARGUMENTS, 3, level)
    assert (code, sorted("".join(out.split()))) == (0, ["0", "1", "2"]), err


RAISES = """
import sys, time
from mpi4py import MPI
from taskfarm import Farm
from taskfarm.compat import MPICommExecutor

where = sys.argv[1]
if where == "never closed":
    farm = Farm.from_comm(MPI.COMM_WORLD)
    if farm is not None:
        farm.map(time.sleep, [0.01] * 100_000)
        raise KeyError("of the root")
with (MPICommExecutor if where == "executor" else Farm.from_comm)(MPI.COMM_WORLD) as farm:
    if farm is not None:
        farm.map(time.sleep, [0.01] * 100)
        raise KeyError("of the root")
sys.stdout.write("left\\n")
sys.stdout.flush()
if where == "mpi4py":
    MPI.COMM_WORLD.Barrier()
"""


@pytest.mark.parametrize("where", ["farm", "executor", "never closed", "mpi4py"])
def test_exception_of_the_block_ends_the_program(program: Run, where: str) -> None:
    code, out, err = program(RAISES, 3, where, words=("-m", "mpi4py") if where == "mpi4py" else ())
    assert code == 1
    assert err.count("KeyError: 'of the root'") == 1
    if where in ("farm", "executor"):
        assert out.split() == ["left"] * 2


LAUNCHED = """
from mpi4py import MPI
from taskfarm import Farm
for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
    with Farm.from_comm(comm) as farm:
        print(farm.num_workers, sum(farm.map(abs, range(100))))
"""


def test_under_taskfarm_run_the_launched_ranks_are_the_workers(run: Run) -> None:
    code, out, err = run(LAUNCHED, 3)
    assert (code, out.splitlines()) == (0, ["2 4950", "2 4950"]), err
