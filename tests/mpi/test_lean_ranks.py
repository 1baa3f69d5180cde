"""A rank loads only what it needs: each file costs every rank some look-ups in a shared file system."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

AT_START = """
import atexit, os, sys

def leave_modules():
    with open(f"modules-{os.getpid()}", "w") as file:
        file.write("\\n".join(sys.modules))

atexit.register(leave_modules)
"""

OF_AN_IDLE_WORKER = {
    "taskfarm",
    "taskfarm.console",
    "taskfarm.environment",
    "taskfarm.errors",
    "taskfarm.fork_hooks",
    "taskfarm.interrupts",
    "taskfarm.launch",
    "taskfarm.launch.cli",
    "taskfarm.launch.config",
    "taskfarm.launch.early",
    "taskfarm.launch.exit_codes",
    "taskfarm.launch.leave",
    "taskfarm.launch.options",
    "taskfarm.launch.placement",
    "taskfarm.launch.run",
    "taskfarm.launch.script",
    "taskfarm.launch.signals",
    "taskfarm.launch.worker_rank",
    "taskfarm.protocol",
    "taskfarm.protocol.describe",
    "taskfarm.protocol.failures",
    "taskfarm.protocol.messages",
    "taskfarm.protocol.serialize",
    "taskfarm.protocol.sides",
    "taskfarm.protocol.task_base",
    "taskfarm.shadowing",
    "taskfarm.transport",
    "taskfarm.transport.doorbell",
    "taskfarm.transport.frames",
    "taskfarm.transport.interface",
    "taskfarm.transport.mpi",
    "taskfarm.transport.waiting",
    "taskfarm.worker",
    "taskfarm.worker.claims",
    "taskfarm.worker.context",
    "taskfarm.worker.cpu_time",
    "taskfarm.worker.folder",
    "taskfarm.worker.functions",
    "taskfarm.worker.left_behind",
    "taskfarm.worker.namespace",
    "taskfarm.worker.output_capture",
    "taskfarm.worker.progress_thread",
    "taskfarm.worker.remote_failures",
    "taskfarm.worker.runner",
    "taskfarm.worker.user_signals",
    "taskfarm.worker.worker",
}
"""What an idle worker has of taskfarm."""

NEVER = (
    "numpy",
    "cloudpickle",
    "asyncio",
    "multiprocessing",
    "subprocess",
    "tempfile",
    "dataclasses",
    "sqlite3",
)
"""What no idle worker has."""


def modules(folder: Path) -> list[set[str]]:
    """The modules of each Python process of a run when it ended, those with the fewest first."""
    return sorted((set(path.read_text().split()) for path in folder.glob("modules-*")), key=len)


@pytest.fixture
def leaves_modules(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "at_start.py").write_text(AT_START)


@pytest.mark.usefixtures("leaves_modules")
def test_an_idle_worker_has_only_what_a_worker_needs(run: Run, tmp_path: Path) -> None:
    code, _, err = run("pass", 2)
    assert code == 0, err
    worker = next(found for found in modules(tmp_path) if "taskfarm.launch.worker_rank" in found)
    assert {name for name in worker if name.partition(".")[0] == "taskfarm"} == OF_AN_IDLE_WORKER
    assert not worker.intersection(NEVER)


TASK = """
from taskfarm import task

@task
def square(x):
    return x * x

if __name__ == "__main__":
    print(sum(square.map(range(10))))
"""


@pytest.mark.usefixtures("leaves_modules")
def test_a_task_brings_neither_the_farm_nor_numpy(run: Run, tmp_path: Path) -> None:
    code, out, err = run(TASK, 2)
    assert (code, out) == (0, "285\n"), err
    worker = next(found for found in modules(tmp_path) if "taskfarm.launch.worker_rank" in found)
    assert not worker.intersection(("numpy", "asyncio", "taskfarm.job.farm", "taskfarm.master.master"))


ISOLATED = """
from taskfarm import task

@task(isolate=True)
def modules():
    import sys
    return sorted(sys.modules)

if __name__ == "__main__":
    found = modules.submit().result()
    others = ("taskfarm.launch", "taskfarm.master", "taskfarm.views")
    print([name for name in found if name.startswith(others)])
    print([name for name in ("numpy", "mpi4py", "asyncio", "taskfarm.job.farm") if name in found])
    print("taskfarm.worker.child_main" in found, "taskfarm.worker.isolation" in found)
"""


def test_the_child_of_an_isolated_task_has_its_runner_and_no_mpi(run: Run) -> None:
    code, out, err = run(ISOLATED, 2)
    assert (code, out) == (0, "[]\n[]\nTrue False\n"), err
