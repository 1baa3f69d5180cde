"""The executors of mpi4py.futures."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from taskfarm.compat.pool import NotPicklable, PrivateFarm, warn_of_all
from taskfarm.compat.ranks import launched_master, resolve_comm
from taskfarm.job.farm import Farm

if TYPE_CHECKING:
    from mpi4py import MPI


class MPIPoolExecutor(NotPicklable, PrivateFarm):
    """`mpi4py.futures.MPIPoolExecutor`: a `Farm` with its signature.

    Four things differ. Workers are ranks that run already, so the keywords that specify how to start them
    have no effect. `map` and `starmap` draw a limited number of tasks ahead of what the caller has
    consumed, not all. Their ``chunksize`` is measured by default. A ``with`` block that ends with an
    exception cancels tasks that have not started.

    Parameters
    ----------
    max_workers : int, optional
        Most workers that run tasks of this executor at a time.
    initializer : callable, optional
        Called on every worker before its first task.
    initargs : iterable
        The arguments of the initializer.
    **kwargs
        ``python_exe``, ``python_args``, ``mpi_info``, ``globals``, ``main``, ``path``, ``wdir``, ``env``,
        ``use_pkl5``, ``backoff`` and any others have no effect; a warning says so, except for the last two.
        Workers have the environment and the
        working directory that mpiexec sets, and the ``sys.path`` of the job.

    Raises
    ------
    ValueError, TypeError
        As for the original.
    UsageError, LaunchError, CallNotPicklable
        As for `Farm`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **kwargs: Any,
    ) -> None:
        if max_workers is not None and int(max_workers) <= 0:
            raise ValueError("max_workers must be greater than 0, or None")
        tuning = ("use_pkl5", "backoff")
        warn_of_all({name: value for name, value in kwargs.items() if name not in tuning})
        super().__init__(max_workers, initializer=initializer, initargs=tuple(initargs))

    @property
    def num_workers(self) -> int:
        """Number of ranks that run tasks; 0 after shutdown, and after the initializer has failed."""
        return 0 if self._closed or self._farm.error is not None else super().num_workers

    def bootup(self, wait: bool = True) -> Self:
        """Return the executor; `wait` has no effect, because the workers run already.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        """
        if self._closed:
            raise RuntimeError("cannot bootup after shutdown: create a new executor")
        return self


class MPICommExecutor(NotPicklable):
    """`mpi4py.futures.MPICommExecutor`: a context manager that yields an executor at the root, else None.

    Under ``python -m taskfarm run`` only rank 0 runs the program: it is the root, whatever `root` is, and
    all other ranks are its workers, whatever `comm` is. The original does the same under
    ``python -m mpi4py.futures``. In a program that all ranks run (``mpiexec python program.py``), the other
    ranks serve as workers when they enter the block. As in the original, they ignore exceptions raised
    inside it.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks to use; by default all.
    root : int
        The rank in `comm` that gets the executor.
    **kwargs
        As for `MPIPoolExecutor`.

    Raises
    ------
    ValueError
        `comm` is not an intracommunicator, or `root` is not one of its ranks.
    """

    def __init__(self, comm: "MPI.Intracomm | None" = None, root: int = 0, **kwargs: Any) -> None:
        self._comm = resolve_comm(comm)
        if self._comm is not None:
            from taskfarm.transport.mpi import takes_part

            takes_part(self._comm, root)
        else:
            launched = launched_master()
            size = 1 if launched is None else launched.transport.size
            if not 0 <= root < size:
                raise ValueError(f"expecting root in range(comm.size), that is, from 0 to {size - 1}")
        self._root = root
        self._options = kwargs
        self._inside: AbstractContextManager[Farm | None] | None = None
        self._served = False

    def __enter__(self) -> Farm | None:
        if self._inside is not None:
            raise RuntimeError("__enter__: this block was entered already; create a new executor")
        if self._comm is None:
            self._inside = MPIPoolExecutor(**self._options)
        else:
            self._inside = MPIPoolExecutor.from_comm(self._comm, self._root, **self._options)
        executor = self._inside.__enter__()
        self._served = executor is None
        return executor

    def __exit__(self, *raised: Any) -> bool:
        inside, self._inside = self._inside, None
        if inside is not None:
            inside.__exit__(*raised)
        return self._served
