"""The executors of mpi4py.futures."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from taskfarm.compat.pool import NotSent
from taskfarm.compat.ranks import launched_master, or_all_ranks, runs_alone
from taskfarm.job.farm import Farm
from taskfarm.master.master import Master

if TYPE_CHECKING:
    from mpi4py import MPI


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
        self._comm = or_all_ranks(comm)
        launched = launched_master()
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
        if runs_alone(comm):
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
