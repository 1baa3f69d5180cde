"""The peers as adapters: all ranks enter `open`, rank 0 gets an executor, the others serve or sleep."""

import multiprocessing
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from importlib import metadata
from itertools import islice
from typing import Any, NamedTuple

from mpi4py import MPI
from mpi4py.futures import MPICommExecutor

from taskfarm import Farm, __version__


class Peer(ABC):
    """One way to run tasks.

    Attributes
    ----------
    name : str
        What to call it.
    queues : bool
        Whether tasks can be queued one by one, and their results awaited later.
    submits : bool
        Whether a single task can be run at all.
    chunks : tuple of int
        Chunk sizes of its map that a user would try; none if there is nothing to choose.
    """

    name: str
    queues = True
    submits = True
    chunks: tuple[int, ...] = (64, 256, 1024, 8192)

    @abstractmethod
    def open(self, comm: MPI.Intracomm) -> Any:
        """A context manager that yields an executor on rank 0, and None on the others. Collective."""

    def version(self) -> str:
        """Name and version, for the heading."""
        return self.name


class TaskFarm(Peer):
    """This project, with no knob turned."""

    name = "taskfarm"
    chunks = ()

    def open(self, comm: MPI.Intracomm) -> Any:
        """A farm on the communicator."""
        return Farm.from_comm(comm)

    def version(self) -> str:
        """Version."""
        return f"taskfarm {__version__}"


class MpiFutures(Peer):
    """The executor that comes with mpi4py."""

    name = "mpi4py.futures"

    @contextmanager
    def open(self, comm: MPI.Intracomm) -> Iterator[Any]:
        """A pool on the communicator."""
        with MPICommExecutor(comm, root=0) as executor:
            yield executor
        rest(comm)

    def version(self) -> str:
        """Version."""
        return f"mpi4py {metadata.version('mpi4py')}"


class SchwimmbadPool:
    """schwimmbad's pool, called as an executor is."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """All results, at the end."""
        return iter(self._pool.map(fn, items))


class Schwimmbad(Peer):
    """schwimmbad's MPIPool: a map, and nothing else."""

    name = "schwimmbad"
    queues = submits = False
    chunks = ()

    @contextmanager
    def open(self, comm: MPI.Intracomm) -> Iterator[Any]:
        """A pool on the communicator; its workers leave by SystemExit."""
        from schwimmbad.mpi import MPIPool

        pool = None
        with suppress(SystemExit):
            pool = MPIPool(comm)
        yield SchwimmbadPool(pool) if pool else None
        if pool:
            pool.close()
        rest(comm)

    def version(self) -> str:
        """Version."""
        return f"schwimmbad {metadata.version('schwimmbad')}"


class ProcessPool(Peer):
    """The standard library's executor, on the host of rank 0."""

    name = "ProcessPoolExecutor"

    @contextmanager
    def open(self, comm: MPI.Intracomm) -> Iterator[Any]:
        """As many processes as there are workers, spawned: no fork after MPI has started."""
        if comm.rank == 0:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(comm.size - 1, mp_context=context) as pool:
                yield pool
        else:
            yield None
        rest(comm)


class Awaited(NamedTuple):
    """What will get a result."""

    result: Callable[[], Any]


class MultiprocessingPool:
    """multiprocessing's pool, called as an executor is."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def submit(self, fn: Callable[..., Any], *args: Any) -> Awaited:
        """Queue a call."""
        return Awaited(self._pool.apply_async(fn, args).get)

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """The results as they come, in order."""
        return iter(self._pool.imap(fn, items, chunksize))


class Multiprocessing(Peer):
    """multiprocessing.Pool, on the host of rank 0."""

    name = "multiprocessing.Pool"

    @contextmanager
    def open(self, comm: MPI.Intracomm) -> Iterator[Any]:
        """As many processes as there are workers, spawned."""
        if comm.rank == 0:
            with multiprocessing.get_context("spawn").Pool(comm.size - 1) as pool:
                yield MultiprocessingPool(pool)
        else:
            yield None
        rest(comm)


class Loop:
    """The master of the textbook: send to whoever is free, receive from anyone, spinning."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm

    def submit(self, fn: Callable[..., Any], *args: Any) -> Awaited:
        """Send a call to the first worker; there is nothing but to wait for it."""
        self._comm.send((0, fn, [args[0]]), 1)
        return Awaited(lambda: self._comm.recv(source=1)[1][0])

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Lists of arguments to free workers, lists of results back; in order."""
        status, pending = MPI.Status(), iter(items)
        free = deque(range(1, self._comm.size))
        arrived: dict[int, list[Any]] = {}
        sent = given = 0
        chunk = list(islice(pending, chunksize))
        while chunk or given < sent:
            while chunk and free:
                self._comm.send((sent, fn, chunk), free.popleft())
                sent += 1
                chunk = list(islice(pending, chunksize))
            number, results = self._comm.recv(source=MPI.ANY_SOURCE, status=status)
            free.append(status.Get_source())
            arrived[number] = results
            while given in arrived:
                yield from arrived.pop(given)
                given += 1


class Textbook(Peer):
    """The loop that every MPI course shows: blocking, pickled, a core burnt for each rank that waits."""

    name = "textbook loop"
    queues = False

    @contextmanager
    def open(self, comm: MPI.Intracomm) -> Iterator[Any]:
        """Serve until None comes."""
        if comm.rank == 0:
            yield Loop(comm)
            for rank in range(1, comm.size):
                comm.send(None, rank)
        else:
            while (task := comm.recv(source=0)) is not None:
                number, fn, arguments = task
                comm.send((number, [fn(argument) for argument in arguments]), 0)
            yield None
        rest(comm)


def rest(comm: MPI.Intracomm) -> None:
    """A barrier in which nobody burns a core."""
    barrier = comm.Ibarrier()
    while not barrier.Test():
        time.sleep(0.01)


PEERS: dict[str, Callable[[], Peer]] = {
    "taskfarm": TaskFarm,
    "mpi4py.futures": MpiFutures,
    "schwimmbad": Schwimmbad,
    "processpool": ProcessPool,
    "multiprocessing": Multiprocessing,
    "textbook": Textbook,
}


def tried(chunks: tuple[int, ...]) -> list[dict[str, int]]:
    """Options of a map for each chunk size; without any, its defaults."""
    return [{"chunksize": chunk} for chunk in chunks] or [{}]
