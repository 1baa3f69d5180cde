"""A master-worker task farm for Python on MPI."""

from taskfarm._version import __version__
from taskfarm.current import current, rng
from taskfarm.decorator import Task, task
from taskfarm.errors import TaskFarmError
from taskfarm.farm import Farm
from taskfarm.futures import Future, as_completed, wait

__all__ = [
    "Farm",
    "Future",
    "Task",
    "TaskFarmError",
    "__version__",
    "as_completed",
    "current",
    "rng",
    "task",
    "wait",
]
