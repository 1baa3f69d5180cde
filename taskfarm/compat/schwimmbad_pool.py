"""The pool of schwimmbad."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from taskfarm.compat.pool import NotPicklable, PrivateFarm
from taskfarm.compat.ranks import launched_master, resolve_comm
from taskfarm.environment import claimed_size
from taskfarm.job.current_farm import registry
from taskfarm.job.farm import Farm

if TYPE_CHECKING:
    from mpi4py import MPI

R = TypeVar("R")


class MPIPool(NotPicklable):
    """`schwimmbad.MPIPool`: `map` on the other ranks.

    Under ``python -m taskfarm run`` only rank 0 runs the program, and the pool is one more farm on its
    workers. In a program that all ranks run (``mpiexec python program.py``), the other ranks serve as
    workers in the constructor and exit with 0 when the pool is closed, as in the original. So the lines
    ``if not pool.is_master(): pool.wait(); sys.exit(0)`` may stay.

    Three things differ. `map` raises the exception of a task, but the original ends all ranks. The callback
    is called in the order of the tasks. Functions and arguments may be ones that plain pickle rejects.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks to use; by default all.
    use_dill : bool
        Has no effect: cloudpickle can send what dill can.

    Raises
    ------
    ValueError
        There is only one rank.

    Attributes
    ----------
    rank, master : int
        The number of this rank, and that of the master.
    size : int
        Number of workers.
    """

    master = 0

    def __init__(self, comm: "MPI.Intracomm | None" = None, use_dill: bool = False) -> None:
        self.comm = resolve_comm(comm)
        shared = launched_master() is not None or registry.current is not None
        self.rank = 0 if shared or self.comm is None else self.comm.Get_rank()
        if self.rank:
            self.wait()
            sys.exit(0)
        if not shared:
            if self.comm is None or self.comm.Get_size() == 1:
                raise ValueError(
                    "Tried to create an MPI pool, but there was only one MPI process available. Need at "
                    "least two: start them with `python -m taskfarm run -n 4 program.py`"
                )
            farm = PrivateFarm.from_comm(self.comm).__enter__()
            assert farm is not None
            self._farm = farm
        else:
            self._farm = PrivateFarm()
        self.size = self._farm.num_workers

    @staticmethod
    def enabled() -> bool:
        """Whether there are several ranks."""
        return launched_master() is not None or (claimed_size(os.environ) or 1) > 1

    def is_master(self) -> bool:
        """Whether this is the rank that runs the program."""
        return self.rank == 0

    def is_worker(self) -> bool:
        """Whether this rank runs tasks."""
        return self.rank != 0

    def wait(self, callback: Callable[[], object] | None = None) -> None:
        """Serve as a worker until the pool is closed, then call `callback`; on the master, do nothing."""
        if self.is_master() or self.comm is None:
            return
        try:
            Farm.from_comm(self.comm)
        except BaseException:
            traceback.print_exc()
            self.comm.Abort(1)
        if callback is not None:
            callback()

    def map(
        self,
        worker: Callable[[Any], R],
        tasks: Iterable[Any],
        callback: Callable[[R], object] | None = None,
    ) -> list[R]:
        """Call `worker` for each task, and `callback` here with each result; returns the results."""
        results = []
        for result in self._farm.map(worker, tasks):
            if callback is not None:
                callback(result)
            results.append(result)
        return results

    def close(self) -> None:
        """Wait for all tasks; under plain ``mpiexec``, stop the workers, too."""
        self._farm.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
