"""Runs the standard library's own tests of executors on `Farm`; the job of test_contract.

They are written against ThreadPoolExecutor and ProcessPoolExecutor. What is about their threads and
processes is in SKIPPED. All that is translated is here: new interpreters become runs of taskfarm, and the
exceptions by which a process pool breaks become the TaskError of the one task (`TRANSLATED`).
"""

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import unittest
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import taskfarm
from taskfarm import compat
from taskfarm.errors import RemoteTraceback, TaskError
from taskfarm.job.current_farm import registry
from taskfarm.worker.child_process import child_environment

SUITE = "test.test_concurrent_futures"

RESULTS = "contract.json"

OF_THREADS = "about the threads of a thread pool"
OF_PROCESSES = "about the processes of a process pool"
OF_MEMORY = "its tasks share memory with the caller"
CRASHES = "ends a plain worker, and so the job; isolated tasks and lost workers: tests/mpi/test_matrix.py"

SKIPPED = {
    "ThreadPoolExecutorTest.test_default_workers": OF_THREADS,
    "ThreadPoolExecutorTest.test_saturation": OF_THREADS,
    "ThreadPoolExecutorTest.test_idle_thread_reuse": OF_THREADS,
    "ThreadPoolExecutorTest.test_hang_global_shutdown_lock": OF_THREADS,
    "ThreadPoolExecutorTest.test_map_submits_without_iteration": OF_MEMORY,
    "ThreadPoolExecutorTest.test_executor_map_current_future_cancel": OF_MEMORY,
    "ThreadPoolWaitTests.test_pending_calls_race": OF_MEMORY,
    "ThreadPoolShutdownTest.test_threads_terminate": OF_THREADS,
    "ThreadPoolShutdownTest.test_del_shutdown": OF_THREADS,
    "ThreadPoolShutdownTest.test_thread_names_assigned": OF_THREADS,
    "ThreadPoolShutdownTest.test_thread_names_default": OF_THREADS,
    "ThreadPoolShutdownTest.test_cancel_futures_wait_false": (
        "a thread has its first task at once, a rank may not have it yet when it is cancelled"
    ),
    "ProcessPoolExecutorTest.test_max_workers_too_large": "about Windows",
    "ProcessPoolExecutorTest.test_killed_child": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": (
        "needs a multiprocessing manager; the same without one: test_contract"
    ),
    "ProcessPoolExecutorTest.test_saturation": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_max_tasks_per_child": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": OF_PROCESSES,
    "ProcessPoolExecutorTest.test_python_finalization_error": OF_PROCESSES,
    "ProcessPoolShutdownTest.test_processes_terminate": OF_PROCESSES,
    "ProcessPoolShutdownTest.test_del_shutdown": OF_PROCESSES,
    "ProcessPoolShutdownTest.test_shutdown_no_wait": OF_PROCESSES,
    "ExecutorShutdownTest.test_hang_gh94440": OF_PROCESSES,
    "ExecutorDeadlockTest.test_crash_at_task_unpickle": CRASHES,
    "ExecutorDeadlockTest.test_crash_during_func_exec_on_worker": CRASHES,
    "ExecutorDeadlockTest.test_crash_during_result_pickle_on_worker": CRASHES,
    "ExecutorDeadlockTest.test_shutdown_deadlock": CRASHES,
    "ExecutorDeadlockTest.test_crash_big_data": CRASHES,
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": OF_PROCESSES,
}
"""Tests that are not run, and why."""

TRANSLATED = ("BrokenProcessPool", "SystemExit")
"""What a task gets there that cannot be loaded, or calls sys.exit; here the pool goes on."""

CASES = {
    "executor": ["ExecutorTest"],
    "test_wait": ["WaitTests", "ThreadPoolWaitTests"],
    "test_as_completed": ["AsCompletedTests"],
    "test_shutdown": ["ExecutorShutdownTest", "ThreadPoolShutdownTest", "ProcessPoolShutdownTest"],
    "test_init": ["InitializerMixin", "FailingInitializerMixin"],
    "test_thread_pool": ["ThreadPoolExecutorTest"],
    "test_process_pool": ["ProcessPoolExecutorTest"],
    "test_deadlock": ["ExecutorDeadlockTest"],
    "test_future": ["FutureTests"],
}
"""The classes of the suite, by the module in which they are from Python 3.12 on."""


def suite_folder() -> Path | None:
    """The folder of Python's tests that has the suite: of this interpreter, or of the system's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (Path(sysconfig.get_path("stdlib")) / "test", Path("/usr/lib") / version / "test"):
        if list(folder.glob("test_concurrent_futures*")):
            return folder
    return None


class Executor(compat.MPIPoolExecutor):
    """`Farm` as the suite makes and looks into an executor."""

    _threads = ()
    _processes: dict[int, Any] = {}  # noqa: RUF012

    def __init__(self, max_workers: int | None = None, mp_context: object = None, **options: Any) -> None:
        super().__init__(max_workers, **options)
        # A pool's own thread, which must end; all farms of a run share one.
        self._executor_manager_thread = SimpleNamespace(join=lambda: None)

    @property
    def _broken(self) -> bool:
        return self._farm.error is not None


class OnFarm:
    """What every class of the suite gets in the place of its own executor."""

    executor_type = Executor

    def get_context(self) -> None:
        return None

    def _assert_logged(self, message: str) -> Any:
        return contextlib.nullcontext()  # the initializer raises on another rank


class Future(taskfarm.Future):
    """A future that nobody has queued, as the tests of futures make them."""

    def __init__(self) -> None:
        super().__init__(registry.master)


def run_elsewhere(*words: str) -> tuple[int, bytes, bytes]:
    """What `assert_python_ok` of the suite does, with a run of taskfarm in the place of an interpreter."""
    code = re.sub(
        r"from concurrent.futures import (\w+)",
        r"from taskfarm.compat import MPIPoolExecutor as \1",
        words[1],
    )
    command = [
        sys.executable,
        "-m",
        "taskfarm",
        "run",
        "-n",
        "2",
        "--quiet",
        "--output",
        "plain",
        "-c",
        code,
    ]
    done = subprocess.run(command, env=child_environment(os.environ), capture_output=True, timeout=240)
    assert done.returncode == 0, done
    # It is a RuntimeError, of which the traceback prints its own name.
    return done.returncode, done.stdout, done.stderr.replace(b"taskfarm.errors.UsageError", b"RuntimeError")


class Names(SimpleNamespace):
    """`concurrent.futures` with other meanings of some names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(futures, name)


def replacements(
    modules: list[ModuleType], case: str, own: bool
) -> list[tuple[ModuleType, dict[str, Any]]]:
    """What names in modules of the suite mean while tests of a class run."""
    process = SimpleNamespace(**{**vars(futures.process), "_RemoteTraceback": RemoteTraceback})
    names: dict[str, Any] = {"ThreadPoolExecutor": Executor, "ProcessPoolExecutor": Executor}
    names["process"] = process
    if own:
        names |= {"wait": taskfarm.wait, "as_completed": taskfarm.as_completed}
    meaning: dict[str, Any] = {"futures": Names(**names), "assert_python_ok": run_elsewhere}
    meaning |= dict.fromkeys(TRANSLATED, TaskError)
    if case == "FutureTests":
        meaning["Future"] = Future
    return [(module, meaning) for module in modules]


def collect() -> Iterator[tuple[str, type, list[tuple[ModuleType, dict[str, Any]]]]]:
    """Names of tests, the classes that have them for `Farm`, and what they find in their modules."""
    package = importlib.import_module(SUITE)
    split = hasattr(package, "__path__")
    util = importlib.import_module(f"{SUITE}.util") if split else package
    for place, names in CASES.items():
        module = importlib.import_module(f"{SUITE}.{place}") if split else package
        for name in names:
            case = vars(module)[name]
            bases = [OnFarm, case]
            if not issubclass(case, unittest.TestCase):
                bases += [util.ExecutorMixin, util.BaseTestCase]
            # Workers find what is called by name in the class of the suite.
            called = {n: getattr(case, n) for n, v in vars(case).items() if isinstance(v, classmethod)}
            built = type(name, tuple(bases), called)
            tests = sorted(test for test in vars(case) if test.startswith("test"))
            for own in [False, True] if name == "AsCompletedTests" else [False]:
                meaning = replacements([module, util], name, own)
                yield from ((f"{name}.{test}{' (own)' * own}", built, meaning) for test in tests)


def main() -> int:
    """Run them; what became of each goes to a file."""
    done: dict[str, Any] = {"passed": [], "failed": {}, "skipped": {}}
    for name, case, meaning in collect():
        if name in SKIPPED:
            done["skipped"][name] = SKIPPED[name]
            continue
        result = unittest.TestResult()
        with contextlib.ExitStack() as stack:
            for module, names in meaning:
                stack.enter_context(mock.patch.dict(vars(module), names))
            case(name.split(".")[1].removesuffix(" (own)")).run(result)
        for _, why in result.skipped:
            done["skipped"][name] = why
        for _, trace in result.failures + result.errors:
            done["failed"][name] = trace
        if result.wasSuccessful() and not result.skipped:
            done["passed"].append(name)
        print(name, len(result.failures + result.errors), file=sys.stderr, flush=True)
    Path(RESULTS).write_text(json.dumps(done))
    return 1 if done["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
