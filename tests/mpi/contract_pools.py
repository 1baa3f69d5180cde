"""Runs other projects' own tests of pools on `taskfarm.compat`; the job of test_contract_pools.

They are the tests of `multiprocessing.Pool` of the standard library, and those of mpi4py.futures and
mpi4py.util.pool in mpi4py's source archive, as under ``python -m mpi4py.futures``, where executors share
the workers. `SKIPPED` holds what is left out, and why.
"""

import importlib
import json
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from taskfarm import compat
from taskfarm.errors import RemoteTraceback
from taskfarm.job.current_farm import registry

RESULTS = "contract.json"

PRIVATE = "reads private attributes"
STARTS = "about how the original starts its workers"
BETTER = "ours has no such limit"

SKIPPED = {
    "_TestPool.test_make_pool": PRIVATE,
    "_TestPool.test_imap_handle_iterable_exception": "loses the results of the chunk that is cut short",
    "_TestPoolWorkerErrors.test_unpickleable_result": f"a lambda as a result: {BETTER}",
    "_TestPoolWorkerLifetime.test_pool_worker_lifetime": PRIVATE,
    "_TestPoolWorkerLifetime.test_worker_finalization_via_atexit_handler_of_multiprocessing": STARTS,
    "ProcessPoolShutdownTest.test_context_manager_shutdown": PRIVATE,
    "ProcessPoolShutdownTest.test_del_shutdown": PRIVATE,
    "ProcessPoolShutdownTest.test_init_bootup_shutdown": PRIVATE,
    "ProcessPoolShutdownTest.test_shutdown": PRIVATE,
    "ProcessPoolShutdownTest.test_shutdown_cancel": PRIVATE,
    "ProcessPoolExecutorTest.test_map_buffersize": f"refuses buffersize= with unordered=: {BETTER}",
    "ProcessPoolPickleTest.test_exc_pickle": "ours says more; its cause is the original",
    "BaseTestPool.test_unsupported_args": f"maxtasksperchild: {BETTER}",
    "ProcessPoolInitTest.test_run_name": PRIVATE,
    "ProcessPoolInitTest.test_get_comm_workers": "mpi4py.futures.get_comm_workers has no counterpart",
    "MPICommExecutorTest.test_get_comm_workers": "mpi4py.futures.get_comm_workers has no counterpart",
    "ProcessPoolBootupTest.test_bootup_shutdown_nowait": PRIVATE,
}
"""Tests that are not run, and why."""

BROKEN = "the first submit breaks the executor, so the second raises"

IN_ONE_PROCESS = {
    **dict.fromkeys(
        (
            "ProcessPoolShutdownTest.test_submit_shutdown_cancel",
            "ProcessPoolShutdownTest.test_submit_shutdown_cancel_wait",
            "ProcessPoolWaitTest.test_first_completed",
            "ProcessPoolWaitTest.test_first_completed_some_already_completed",
            "ProcessPoolWaitTest.test_first_exception",
            "ProcessPoolWaitTest.test_first_exception_one_already_failed",
            "ProcessPoolWaitTest.test_first_exception_some_already_complete",
            "ProcessPoolWaitTest.test_timeout",
            "ProcessPoolAsCompletedTest.test_zero_timeout",
            "ProcessPoolExecutorTest.test_map_timeout",
            "ProcessPoolExecutorTest.test_map_unordered_timeout",
            "ProcessPoolExecutorTest.test_submit_cancel",
            "MPICommExecutorTest.test_self",
            "BaseTestPool.test_apply_async",
            "BaseTestPool.test_apply_async_timeout",
            "BaseTestPool.test_terminate",
        ),
        "a task has ended when submit returns, or runs in the thread that waits",
    ),
    "SharedPoolInitTest.test_initializer_1": BROKEN,
    "ProcessPoolInitTest.test_initializer_error": BROKEN,
    "MPICommExecutorTest.test_initializer_error": BROKEN,
    "ProcessPoolInitTest.test_max_workers": PRIVATE,
}
"""Tests that are not run either if tasks run one after the other in the process of the job, and why."""

MPI4PY_CASES = (
    *("SharedPoolInitTest", "ProcessPoolInitTest", "ProcessPoolBootupTest", "ProcessPoolShutdownTest"),
    *("ProcessPoolWaitTest", "ProcessPoolAsCompletedTest", "ProcessPoolExecutorTest"),
    *("ProcessPoolSubmitTest", "ProcessPoolPickleTest", "MPICommExecutorTest"),
)


def mpi4py_folder() -> Path | None:
    """The folder in mpi4py's source archive that has its tests, where scripts/setup has unpacked it."""
    root = Path(__file__).parents[2]
    return next(iter(sorted(root.glob(".venv/mpi4py-*/demo/futures"))), None)


def of_multiprocessing() -> Iterator[tuple[str, type]]:
    """The standard library's tests of `multiprocessing.Pool`."""
    suite = importlib.import_module("test._test_multiprocessing")
    suite.multiprocessing.pool.RemoteTraceback = RemoteTraceback
    suite.multiprocessing = Names(suite.multiprocessing, Pool=compat.Pool)
    for name in ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime"):
        # A worker that looks for the class by its name finds that of the suite.
        members = {"TYPE": "processes", "Pool": staticmethod(compat.Pool), "__module__": suite.__name__}
        vars(suite)[name] = type(name, (vars(suite)[name], unittest.TestCase), members)
        yield name, vars(suite)[name]


def of_mpi4py(folder: Path) -> Iterator[tuple[str, type]]:
    """mpi4py's tests of its executors and of its pool."""
    from mpi4py import futures as original

    sys.path += [str(folder), str(folder.parents[1] / "test")]
    names = ("MPIPoolExecutor", "MPICommExecutor", "as_completed", "wait")
    with mock.patch.multiple(original, **{name: getattr(compat, name) for name in names}):
        original._core.SharedPool = True
        suite = importlib.import_module("test_futures")
        suite.futures = Names(original, **{name: getattr(compat, name) for name in names})
    original._core.RemoteTraceback = RemoteTraceback
    for name in MPI4PY_CASES:
        # With one process, the suite drops the tests of pickling.
        if name in vars(suite):
            yield name, vars(suite)[name]
    pools = importlib.import_module("test_util_pool")
    yield (
        "BaseTestPool",
        type("BaseTestPool", (pools.BaseTestPool, unittest.TestCase), {"PoolType": compat.Pool}),
    )


class Names:
    """A module with other meanings of some names."""

    def __init__(self, module: types.ModuleType, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def run(cases: Iterator[tuple[str, type]], done: dict[str, Any]) -> None:
    """Run all tests of some classes, and note what became of each."""
    skipped = SKIPPED | (IN_ONE_PROCESS if registry.master.transport.inline else {})
    for name, case in cases:
        loaded = unittest.TestSuite()
        for test in unittest.TestLoader().getTestCaseNames(case):
            if (key := f"{name}.{test}") in skipped:
                done["skipped"][key] = skipped[key]
            else:
                loaded.addTest(case(test))
        result = Noting(name, done)
        loaded.run(result)


class Noting(unittest.TestResult):
    """Notes what became of each test."""

    def __init__(self, name: str, done: dict[str, Any]) -> None:
        super().__init__()
        self._name = name
        self._done = done

    def _key(self, test: Any) -> str:
        return f"{self._name}.{getattr(test, '_testMethodName', test)}"

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        print(self._key(test), file=sys.stderr, flush=True)

    def addSuccess(self, test: Any) -> None:
        self._done["passed"].append(self._key(test))

    def addSkip(self, test: Any, reason: str) -> None:
        self._done["skipped"][self._key(test)] = reason

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._done["failed"][self._key(test)] = self.errors[-1][1]

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._done["failed"][self._key(test)] = self.failures[-1][1]

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)


SUITES: dict[str, Callable[..., Iterator[tuple[str, type]]]] = {
    "multiprocessing": of_multiprocessing,
    "mpi4py": of_mpi4py,
}


def main(suite: str, *folder: str) -> int:
    """Run a suite; what became of each test goes to a file."""
    done: dict[str, Any] = {"passed": [], "failed": {}, "skipped": {}}
    run(SUITES[suite](*map(Path, folder)), done)
    Path(RESULTS).write_text(json.dumps(done))
    return 1 if done["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
