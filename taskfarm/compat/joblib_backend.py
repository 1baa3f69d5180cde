"""A backend of joblib; importing this module registers it.

So scikit-learn and all else that computes by joblib uses the farm::

    import taskfarm.joblib_backend

    with joblib.parallel_config(backend="taskfarm"):
        GridSearchCV(model, grid).fit(x, y)
"""

from collections.abc import Callable
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from taskfarm.job.farm import current_farm
from taskfarm.job.futures import Future


class TaskfarmBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches on the farm that is open, or the default one.

    Calls of joblib inside a task run one after the other there.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_timeout = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at a time: so many, or with a negative number all workers, -2 all but one.

        Raises
        ------
        ValueError
            `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning: leave it out, or give -1 for all")
        n_jobs = self.default_n_jobs if n_jobs is None else n_jobs
        return n_jobs if n_jobs > 0 else max(1, current_farm().num_workers + 1 + n_jobs)

    def configure(self, n_jobs: int = -1, parallel: Any = None, **options: Any) -> int:
        """Get ready for one call of Parallel; returns the number of batches that run at a time."""
        farm = current_farm()
        if farm._master.transport.inline:
            # Each task would run inside the callback of the one before, deeper and deeper.
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        # Where no thread moves the farm, joblib would wait for callbacks for ever.
        self.supports_retrieve_callback = farm._background is not None
        self._farm = farm
        self._futures: set[Future[Any]] = set()
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Queue a batch; `callback` is called with its future."""
        future = self._farm.submit(func)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What a batch gave, or raise what it raised."""
        return out.result()

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        """What a batch gives, or raise what it raises; waits for it."""
        return out.result(timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the batches that no worker has begun."""
        for future in list(self._futures):
            future.cancel()

    def terminate(self) -> None:
        """End one use of the backend; the farm stays."""
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, None]:
        """What joblib inside a task uses."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


register_parallel_backend("taskfarm", TaskfarmBackend)
