"""A master-worker task farm for Python on MPI.

Decorate a function with `task`, and start the program with ``python -m taskfarm run -n auto job.py``::

    from taskfarm import task

    @task
    def square(x):
        return x * x

    print(sum(square.map(range(1000))))

`Task.submit` returns a `Future`; `as_completed` and `wait` take several. `Farm` is an executor, for
functions without a decorator, an initializer or a seed. `share` and `build` give all tasks the same large
data, once on each host. A `Command` is a task that runs a program. In a task, `current` tells which it is,
`rng` draws random numbers; `comm` is the communicator of a task that several
ranks run. Errors are in ``taskfarm.errors``; help for tests is in
``taskfarm.testing``.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskfarm.errors import TaskFarmError
    from taskfarm.job.decorator import Task, task
    from taskfarm.job.farm import Farm
    from taskfarm.job.futures import Future, as_completed, wait
    from taskfarm.job.share import build, share
    from taskfarm.protocol.shared import Shared
    from taskfarm.shell.command import Command
    from taskfarm.worker.context import comm, current, rng

__version__ = "0.1.0"

__all__ = [
    "Command",
    "Farm",
    "Future",
    "Shared",
    "Task",
    "TaskFarmError",
    "__version__",
    "as_completed",
    "build",
    "comm",
    "current",
    "rng",
    "share",
    "task",
    "wait",
]

_WHERE = {
    "Command": "taskfarm.shell.command",
    "Farm": "taskfarm.job.farm",
    "Future": "taskfarm.job.futures",
    "Shared": "taskfarm.protocol.shared",
    "Task": "taskfarm.job.decorator",
    "TaskFarmError": "taskfarm.errors",
    "as_completed": "taskfarm.job.futures",
    "build": "taskfarm.job.share",
    "comm": "taskfarm.worker.context",
    "current": "taskfarm.worker.context",
    "rng": "taskfarm.worker.context",
    "share": "taskfarm.job.share",
    "task": "taskfarm.job.decorator",
    "wait": "taskfarm.job.futures",
}


def _set_aside() -> None:
    """Look for the standard library first if files beside this script are named like modules of it."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and sys.path and os.path.dirname(os.path.realpath(script)) == sys.path[0]:
        from taskfarm.shadowing import set_aside

        set_aside(sys.path[0])


_set_aside()


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: a worker never needs most of them."""
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in ("compat", "errors", "testing"):
        value = import_module(f"taskfarm.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
