"""The names of mpi4py.futures and schwimmbad."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from taskfarm.compat.pool import NotSent
from taskfarm.environment import claimed_size
from taskfarm.job.current_farm import registry
from taskfarm.job.farm import Farm, current_farm
from taskfarm.master.master import Master

if TYPE_CHECKING:
    from mpi4py import MPI

R = TypeVar("R")


class MPIPoolExecutor(NotSent, Farm):
    """`mpi4py.futures.MPIPoolExecutor`: a `Farm` with its signature.

    Five things differ: workers are ranks that are there already, so ``max_workers`` and the other
    keywords that say how to start them have no effect; one executor can be open at a time; `map` and
    `starmap` draw a window ahead of what their caller consumes, not all; their ``chunksize`` is measured
    by default; and a ``with`` block that ends by an exception cancels what has not started.

    Parameters
    ----------
    max_workers : int, optional
        Checked; has no effect.
    initializer : callable, optional
        Called on every worker before its first task.
    initargs : iterable
        Its arguments.
    **kwargs
        ``python_exe``, ``python_args``, ``mpi_info``, ``globals``, ``main``, ``path``, ``wdir``, ``env``,
        ``use_pkl5``, ``backoff`` and any others: no effect. Workers have the environment and the
        folder that mpiexec gives them, and the path of the job.

    Raises
    ------
    ValueError, TypeError
        As by the original.
    UsageError, LaunchError, CallNotPicklable
        As by `Farm`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        _master: Master | None = None,
        **kwargs: Any,
    ) -> None:
        if max_workers is not None and int(max_workers) <= 0:
            raise ValueError("max_workers must be greater than 0; None is fine, too")
        super().__init__(initializer=initializer, initargs=tuple(initargs), _master=_master)

    @property
    def num_workers(self) -> int:
        """Ranks that run tasks; 0 after shutdown."""
        return 0 if self._closed else super().num_workers

    def bootup(self, wait: bool = True) -> Self:
        """Return the executor: its workers are there, `wait` or not.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        """
        if self._closed:
            raise RuntimeError("cannot bootup after shutdown: make another executor")
        return self


class MPICommExecutor(NotSent):
    """`mpi4py.futures.MPICommExecutor`: a context manager that gives an executor at the root, else None.

    Under ``python -m taskfarm run`` only rank 0 runs the program: it is the root, whatever `root` is,
    and its workers are all other ranks, whatever `comm` is; so does the original under
    ``python -m mpi4py.futures``. In a program that all ranks run (``mpiexec python program.py``) the
    others serve as workers where they enter the block. As by the original, they ignore what is raised
    inside it.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks to use; all by default.
    root : int
        The rank of it that gets the executor.
    **kwargs
        As for `MPIPoolExecutor`.

    Raises
    ------
    ValueError
        It is no intracommunicator, or has no such root.
    """

    def __init__(self, comm: "MPI.Intracomm | None" = None, root: int = 0, **kwargs: Any) -> None:
        if comm is not None and comm.Is_inter():
            raise ValueError("expecting an intracommunicator, as MPI.COMM_WORLD is")
        self._comm = _or_everyone(comm)
        launched = _launched()
        others = 1 if launched is None else launched.transport.size
        size = others if self._comm is None else self._comm.Get_size()
        if not 0 <= root < size:
            raise ValueError(f"expecting root in range(comm.size), that is from 0 to {size - 1}")
        self._root = root
        self._options = kwargs
        self._inside: AbstractContextManager[Farm | None] | None = None
        self._ranks: Any = None
        self._served = False

    def __enter__(self) -> Farm | None:
        if self._inside is not None:
            raise RuntimeError("__enter__: this block is entered already, make another executor")
        comm: Any = self._comm
        if _alone(comm):
            self._inside = MPIPoolExecutor(**self._options)
        else:
            # The root comes first in it.
            self._ranks = comm.Split(0, -1 if comm.Get_rank() == self._root else 0)
            self._inside = MPIPoolExecutor.from_comm(self._ranks, **self._options)
        executor = self._inside.__enter__()
        self._served = executor is None
        return executor

    def __exit__(self, *raised: Any) -> bool:
        inside, self._inside = self._inside, None
        if inside is not None:
            inside.__exit__(*raised)
        if self._ranks is not None:
            self._ranks.Free()
            self._ranks = None
        return self._served


def _launched() -> Master | None:
    """The master of the launch, if there are other ranks that serve it."""
    master = registry.current_master
    return None if master is None or master.transport.inline else master


def _alone(comm: "MPI.Intracomm | None") -> bool:
    """Whether this process alone runs the program."""
    several = (claimed_size(os.environ) or 1) > 1 or (comm is not None and comm.Get_size() > 1)
    return _launched() is not None or not several


def _or_everyone(comm: "MPI.Intracomm | None") -> "MPI.Intracomm | None":
    """All ranks where none are given; None where only this one runs the program."""
    if comm is not None or _alone(comm):
        return comm
    from taskfarm.transport.mpi import world

    return world()


class MPIPool(NotSent):
    """`schwimmbad.MPIPool`: `map` over the other ranks.

    Under ``python -m taskfarm run`` only rank 0 runs the program, and the pool uses the farm that is
    open, or the default one. In a program that all ranks run (``mpiexec python program.py``) the others
    serve as workers in the constructor and exit with 0 when the pool is closed, as the original's do;
    so the lines ``if not pool.is_master(): pool.wait(); sys.exit(0)`` may stay.

    Three things differ: an exception of a task is raised by `map` (the original ends all ranks); the
    callback is called in the order of the tasks; functions and arguments that plain pickle refuses are
    fine.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks to use; all by default.
    use_dill : bool
        Has no effect: cloudpickle sends what dill does.

    Raises
    ------
    ValueError
        There is one rank only.

    Attributes
    ----------
    rank, master : int
        This rank, and that of the master.
    size : int
        Workers.
    """

    master = 0

    def __init__(
        self, comm: "MPI.Intracomm | None" = None, use_dill: bool = False, *, _farm: Farm | None = None
    ) -> None:
        self.comm = _or_everyone(comm)
        self._own: Farm | None = None
        self._given = _farm
        shared = _farm is not None or _launched() is not None
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
            self._own = self._given = Farm.from_comm(self.comm).__enter__()
        self.size = (self._given or current_farm()).num_workers

    @staticmethod
    def enabled() -> bool:
        """Whether there are several ranks."""
        return _launched() is not None or (claimed_size(os.environ) or 1) > 1

    def is_master(self) -> bool:
        """Whether this is the rank that runs the program."""
        return self.rank == 0

    def is_worker(self) -> bool:
        """Whether this rank runs tasks."""
        return self.rank != 0

    def wait(self, callback: Callable[[], object] | None = None) -> None:
        """Serve as a worker until the pool is closed, then call `callback`; at the master, do nothing."""
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
        """Call `worker` for each of `tasks`, `callback` here with each result; returns the results."""
        results = []
        for result in (self._given or current_farm()).map(worker, tasks):
            if callback is not None:
                callback(result)
            results.append(result)
        return results

    def close(self) -> None:
        """End the workers that this pool has for itself."""
        if self._own is not None:
            self._own.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
