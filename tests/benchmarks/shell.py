"""Farms of commands side by side: ``python -m tests.benchmarks.shell --count 10000``

Each program runs ``true`` so many times, two at a time, one program after the other, round by round; its
start counts. The fastest round of each counts, with its CPU time. HyperQueue and disBatch take part if
``--with PYTHON`` names an interpreter that has the packages ``hyperqueue`` and ``disbatch``. The CPU time
of disBatch is not seen, because its processes are not children of what is started; it gets a fiftieth of
the commands.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

FEW = 50
"""Which part of the commands the slow ones run."""

HYPERQUEUE = """
import sys
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client, job = cluster.client(), Job()
    for number in range(int(sys.argv[1])):
        job.program(["true", str(number)], stdout=None, stderr=None)
    client.wait_for_jobs([client.submit(job)])
"""


COMMAND_MAP = """
from taskfarm import Command
if __name__ == "__main__":
    for done in Command("true {{}}").map(range({count})):
        assert done.returncode == 0
"""


def programs(count: int, other: str | None) -> dict[str, Sequence[str]]:
    """The command of each program that is here, by its name; the folder has the files that they read."""
    found = {
        "taskfarm shell -n 3": [sys.executable, "-m", "taskfarm", "shell", "-n", "3", "--quiet", "tasks"],
        "Command.map, -n 3": [sys.executable, "-m", "taskfarm", "run", "-n", "3", "--quiet", "job.py"],
        "GNU parallel -j2": ["parallel", "--will-cite", "-j2", "--arg-file", "tasks"],
        "xargs -P2, sh -c": ["xargs", "-P2", "-a", "numbers", "-I{}", "sh", "-c", "true {}"],
        "xargs -P2": ["xargs", "-P2", "-a", "numbers", "-n1", "true"],
    }
    if other:
        found["HyperQueue, 2 cores"] = [other, "-c", HYPERQUEUE, str(count)]
        disbatch = os.path.join(os.path.dirname(other), "disBatch")
        found["disBatch, 2 slots"] = [disbatch, "-s", "localhost:2", "few"]
    return {name: words for name, words in found.items() if shutil.which(words[0])}


def measure(words: Sequence[str], folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of a program."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=3600)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.shell", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with", dest="other", metavar="PYTHON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = given.count // FEW
        for name, text, count in (
            ("tasks", "true {}\n", given.count), ("numbers", "{}\n", given.count), ("few", "true {}\n", few)
        ):  # fmt: skip
            with open(os.path.join(folder, name), "w") as file:
                file.writelines(text.format(number) for number in range(count))
        with open(os.path.join(folder, "job.py"), "w") as file:
            file.write(COMMAND_MAP.format(count=given.count))
        found = programs(given.count, given.other)
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for _ in range(given.rounds):
            for name, words in found.items():
                runs[name].append(measure(words, folder))
    print(f"{'':24}commands/s  CPU per command")
    for name, costs in runs.items():
        wall, cpu = min(costs)
        count = few if "few" in found[name] else given.count
        print(f"{name:24}{count / wall:10,.0f}  {1e3 * cpu / count:12.2f} ms")


if __name__ == "__main__":
    main()
