"""Drop-in names of other libraries, over the farm: switching to taskfarm costs the import line.

`Pool` is multiprocessing's, `MPIPoolExecutor` and `MPICommExecutor` are mpi4py.futures', `MPIPool` is
schwimmbad's. What differs is in their docstrings.
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
