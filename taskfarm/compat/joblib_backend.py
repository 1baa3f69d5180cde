"""A joblib backend; importing this module registers it.

It lets scikit-learn, and everything else that uses joblib, run on the farm::

    import taskfarm.joblib_backend

    with joblib.parallel_config(backend="taskfarm"):
        GridSearchCV(model, grid).fit(x, y)
"""

import copy
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

from joblib import register_parallel_backend
from joblib.disk import memstr_to_bytes
from joblib.parallel import (
    AutoBatchingMixin,
    BatchedCalls,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from taskfarm.compat.repeated_arrays import RepeatedArrays
from taskfarm.worker.context import IN_TASK

if TYPE_CHECKING:
    from taskfarm.job.farm import Farm


class TaskfarmBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches on the open farm, or the default one.

    A joblib call inside of a task submits its batches as tasks of that task. Arrays of ``max_nbytes`` and
    more that several calls of the job have as an argument are shared, and so read-only, as joblib's own
    memory maps are.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_timeout = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Number of batches that run at a time: `n_jobs`; -1 means all workers, -2 all but one, and so on.

        Raises
        ------
        ValueError
            `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError(
                "n_jobs == 0 in Parallel has no meaning: leave it out, or pass -1 for all workers"
            )
        n_jobs = self.default_n_jobs if n_jobs is None else n_jobs
        return n_jobs if n_jobs > 0 else max(1, _current_farm().num_workers + 1 + n_jobs)

    def configure(self, n_jobs: int = -1, parallel: Any = None, **options: Any) -> int:
        """Prepare for one call of Parallel; returns the number of batches that run at a time.

        Of joblib's options, ``max_nbytes`` and ``mmap_mode`` decide which arrays are shared.
        """
        farm = _current_farm()
        in_task = IN_TASK.get() is not None
        if in_task:
            # Nothing arrives unless the task waits.
            self.supports_retrieve_callback = False
        elif farm._master.transport.inline:
            # Each task would run inside the callback of the previous one, until the stack overflows.
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        else:
            # Without a background thread, joblib would wait for callbacks forever.
            self.supports_retrieve_callback = farm._background is not None
        self._farm = farm
        self._futures: set[Future[Any]] = set()
        self._arrays: RepeatedArrays | None = None
        least = None if in_task else options.get("max_nbytes")
        if least is not None and options.get("mmap_mode") == "r":
            self._arrays = RepeatedArrays(memstr_to_bytes(least) if isinstance(least, str) else least)
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Queue a batch; `callback` is called with its future."""
        # As an argument: each batch is another one, and what is in it is not data of a function.
        future = self._farm.submit(BatchedCalls.__call__, self._with_shared_arrays(func))
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _with_shared_arrays(self, func: Any) -> Any:
        """A batch whose calls have handles in the place of large arrays."""
        if self._arrays is None:
            return func
        replaced = self._arrays.replaced
        batch = copy.copy(func)
        batch.items = [
            (call, tuple(map(replaced, args)), {name: replaced(value) for name, value in keywords.items()})
            for call, args, keywords in func.items
        ]
        return batch

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch that has ended, or raise its exception."""
        return out.result()

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        """Wait for a batch; return its results, or raise its exception."""
        return out.result(timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the batches that are still in the queue."""
        for future in list(self._futures):
            future.cancel()

    def terminate(self) -> None:
        """End one use of the backend; the farm stays open."""
        if self._arrays is not None:
            self._arrays.clear()
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, None]:
        """The backend for joblib calls inside a task."""
        return TaskfarmBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _current_farm() -> "Farm":
    """The farm of the task that calls this, or that of the job."""
    if (context := IN_TASK.get()) is not None:
        return cast("Farm", context.spawner)
    from taskfarm.job.farm import current_farm

    return current_farm()


register_parallel_backend("taskfarm", TaskfarmBackend)
