"""What ranks cost at start, beside bare mpi4py: ``python -m tests.benchmarks.start``

Each program is started on a number of ranks, one program after the other, with the mpiexec of this
environment. CPU time is that of mpiexec and of everything that it started, until all ranks have ended. The
least of the rounds counts, for CPU and for wall time. ``--other FOLDER`` measures a second source tree of
taskfarm in the same rounds. The bytecode of both is compiled before.
"""

import argparse
import compileall
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from taskfarm.launch.mpiexec import find_mpiexec, loaded_library

PROGRAMS = {
    "mpi4py": ["-c", "from mpi4py import MPI"],
    "mpi4py, cloudpickle": ["-c", "from mpi4py import MPI; import cloudpickle"],
    "mpi4py, cloudpickle, numpy": ["-c", "from mpi4py import MPI; import cloudpickle, numpy"],
    "taskfarm": ["-m", "taskfarm", "run", "--quiet", "-c", "pass"],
}
"""What is started on each rank; the job of taskfarm does nothing, so its workers stay idle."""


class Cost(NamedTuple):
    """CPU seconds and wall seconds of a run."""

    cpu: float
    wall: float


def cost(mpiexec: str, ranks: int, words: list[str], environ: Mapping[str, str], folder: str) -> Cost:
    """Start a program on some ranks in a folder, and wait for its end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [mpiexec, "-n", str(ranks), sys.executable, *words]
    subprocess.run(command, env=environ, cwd=folder, check=True, stdin=subprocess.DEVNULL, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, time.perf_counter() - started)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.start", description=__doc__)
    parser.add_argument("--ranks", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", metavar="FOLDER", help="a second source tree of taskfarm to measure")
    given = parser.parse_args()
    mpiexec = find_mpiexec(loaded_library())
    environ = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    # Python looks for the program's modules in the current folder first.
    runs = {name: (words, os.getcwd()) for name, words in PROGRAMS.items()}
    if given.other:
        runs[f"taskfarm in {os.path.basename(given.other)}"] = (PROGRAMS["taskfarm"], given.other)
    for folder in {folder for _, folder in runs.values()}:
        compileall.compile_dir(os.path.join(folder, "taskfarm"), quiet=1)
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, (words, folder) in runs.items():
            costs[name].append(cost(mpiexec, given.ranks, words, environ, folder))
    cpu = {name: min(one.cpu for one in found) for name, found in costs.items()}
    base = cpu["mpi4py, cloudpickle"]
    print(f"{given.ranks} ranks, least of {given.rounds} rounds: CPU s, ms a rank, ratio, wall s")
    for name, found in costs.items():
        wall = min(one.wall for one in found)
        each = 1e3 * cpu[name] / given.ranks
        print(f"{name:28} {cpu[name]:7.2f} {each:7.0f} {cpu[name] / base:7.2f} {wall:7.2f}")


if __name__ == "__main__":
    main()
