"""Drop-in replacements for the pools of other libraries: to switch to taskfarm, change the import line.

`Pool` replaces that of multiprocessing, `MPIPoolExecutor` and `MPICommExecutor` those of mpi4py.futures,
and `MPIPool` that of schwimmbad. Their docstrings list the differences.
"""

from taskfarm.compat.async_results import AsyncResult
from taskfarm.compat.mpi4py_futures import MPICommExecutor, MPIPoolExecutor
from taskfarm.compat.pool import Pool
from taskfarm.compat.schwimmbad_pool import MPIPool
from taskfarm.job.futures import Future, as_completed, wait

__all__ = [
    "AsyncResult",
    "Future",
    "MPICommExecutor",
    "MPIPool",
    "MPIPoolExecutor",
    "Pool",
    "as_completed",
    "wait",
]
