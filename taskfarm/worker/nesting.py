"""How a runner sets a task aside that waits, runs other batches meanwhile, and goes on."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskfarm.errors import UsageError
from taskfarm.protocol.messages import Blob, DefineNames
from taskfarm.protocol.serialize import loads
from taskfarm.worker.context import TaskContext, refuse_thread_of_task
from taskfarm.worker.cpu_time import CpuMeter
from taskfarm.worker.folder import TaskFolder
from taskfarm.worker.spawning import Spawner, Upstream

if TYPE_CHECKING:
    from taskfarm.worker.isolation import IsolatedRunner
    from taskfarm.worker.runner import Runner

_OF_A_BATCH = (
    *("_block", "_block_start", "_called_with", "_chained", "_claims", "_columns", "_context", "_cpu"),
    *("_folder", "_isolated_runner", "_left", "_loaded", "_step", "_step_restores", "_thread", "_waiting"),
    "interrupted",
)
"""What a runner keeps for the batch that it is running."""


class Nesting:
    """Lets the tasks of one process submit tasks and wait for them.

    Parameters
    ----------
    runner : Runner
        Runs the tasks.
    make_upstream : callable or None
        Makes the way to rank 0; None if there is none.

    Attributes
    ----------
    upstream : Upstream
        The way to rank 0.
    spawner : Spawner
        The farm as tasks see it.
    spare : list of IsolatedRunner
        What runs calls in child processes while a task in another one waits.
    """

    def __init__(self, runner: "Runner", make_upstream: Callable[[], Upstream] | None) -> None:
        if make_upstream is None:
            raise UsageError("this task cannot submit tasks: call the function directly")
        self._runner = runner
        self.upstream = make_upstream()
        self.spawner = Spawner(runner, self.upstream)
        self.spare: list[IsolatedRunner] = []

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """A context in which the runner can run other batches, while a task that it runs waits.

        The time that passes counts neither for the task nor for its CPU time.
        """
        runner: Any = self._runner
        saved = {name: getattr(runner, name) for name in _OF_A_BATCH}
        started, cpu = time.perf_counter(), time.process_time()
        folder = saved["_folder"]
        here = folder.leave() if folder.home else ""
        namespace = None if saved["_loaded"] is None else saved["_loaded"].namespace
        in_use = () if namespace is None else namespace.in_use
        # The timers of the task that waits run on.
        runner._timers.ask_again()
        runner._waiting, runner._claims, runner._loaded = deque(), None, None
        runner._context, runner._cpu = TaskContext(runner.place, runner), CpuMeter()
        runner._folder = TaskFolder(runner._stop_block)
        runner._columns, runner._block, runner._left, runner._chained = [], [], [], None
        claims = saved["_claims"]
        isolated = claims is not None and claims.function in runner._limits
        if isolated:
            # The child process of the task that waits stays as it is.
            runner._isolated_runner = self.spare.pop() if self.spare else saved["_isolated_runner"].copy()
        try:
            yield
        finally:
            nested = runner._isolated_runner
            for name, value in saved.items():
                setattr(runner, name, value)
            if isolated and nested is not None:
                self.spare.append(nested)
            elif not isolated:
                runner._isolated_runner = nested
            if namespace is not None:
                namespace.switch()
                namespace.use(in_use)
            if here:
                folder.come_back(here)
            if claims is not None:
                claims.skip(time.perf_counter() - started)
            saved["_cpu"].skip(time.process_time() - cpu)

    def define(self, message: DefineNames) -> None:
        """Keep definitions."""
        self._runner.prepare(message)

    def load(self, blob: Blob) -> Any:
        """Unpickle a result for the task that runs."""
        loaded = self._runner._loaded
        return loads(blob) if loaded is None else loaded.namespace.load(blob)

    def check_thread(self) -> None:
        """Raise UsageError if the caller is not in the thread that runs the task."""
        if self._runner._thread != threading.get_ident():
            refuse_thread_of_task()
