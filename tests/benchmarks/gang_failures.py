"""Every way in which a member of a task on several ranks can fail, one run for each; says what held.

    python -m tests.benchmarks.gang_failures
    python -m tests.benchmarks.gang_failures --mpi openmpi --survive --ranks 4

{raise, sys.exit, os._exit, kill} x {in a collective, outside} x {each member} under each MPI. A run must
come to its end and leave no process. It ends with all ranks, with a line that names the task and its ranks,
or goes on, and another task on the same ranks works. What was done before is in the journal in any case.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.mpi.conftest import PYTHONS, Job

JOB = """
import os, signal, sys, time
import taskfarm
from taskfarm import task

how, where, victim, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

@task
def before(x):
    return x

@task(ranks=ranks)
def solve():
    comm = taskfarm.comm()
    comm.barrier()
    if comm.rank == victim and not os.path.exists("failed"):
        open("failed", "w").close()
        if where == "outside":
            time.sleep(0.1)
        if how == "raise":
            raise ValueError(how)
        elif how == "leave":
            sys.exit(3)
        elif how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "outside" and not os.path.exists("again"):
        time.sleep(60)
    return comm.allreduce(1)

if __name__ == "__main__":
    assert list(before.map(range(10))) == list(range(10))
    error = solve.submit().exception()
    print("error", type(error).__name__, flush=True)
    open("again", "w").close()
    assert solve.submit().result() == ranks
    print("goes on", flush=True)
"""

HOWS = ("raise", "leave", "exit", "kill")
"""What a member does: raises, calls ``sys.exit`` or ``os._exit``, or is killed."""

LIMIT = 240.0
"""Seconds after which a run counts as hanging."""


def expected(how: str, where: str, survives: bool) -> str:
    """What must happen to the run: it goes on, or ends with a line that has this text."""
    if survives or (where == "outside" and how in ("raise", "leave")):
        return "goes on"
    return "this MPI cannot end their calls" if how in ("raise", "leave") else "this run ended during"


def run(python: Path, how: str, where: str, victim: int, ranks: int, survives: bool) -> str:
    """Run one cell; returns what was wrong, or an empty text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.py").write_text(JOB)
        options = ["--grace", "2", "--journal", "j", *(["--survive"] if survives else [])]
        start = ["-m", "taskfarm", "run", "-n", str(ranks + 1 + survives)]
        words = [how, where, str(victim), str(ranks)]
        try:
            code, out, err = Job(python, [*start, *options, "job.py", *words], folder).end(LIMIT)
            wanted = expected(how, where, survives)
            if wanted == "goes on":
                return "" if code == 0 and wanted in out else f"exit code {code}\n{out}{err}"
            members = ", ".join(map(str, range(1, ranks + 1)))
            lines = [line for line in err.splitlines() if wanted in line]
            if code == 0 or len(lines) != 1 or f"task 10 solve on ranks {members}" not in lines[0]:
                return f"exit code {code}\n{out}{err}"
            (folder / "again").touch()
            code, out, err = Job(python, [*start, *options, "--resume", "job.py", *words], folder).end(
                LIMIT
            )
            return "" if code == 0 and "10 results came from j" in err else f"resumed: {code}\n{out}{err}"
        except Exception as error:
            return str(error)


def main() -> int:
    """Run all cells; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mpi", choices=list(PYTHONS), nargs="+", default=list(PYTHONS))
    parser.add_argument("--survive", action="store_true", help="where ranks may die (Open MPI)")
    parser.add_argument("--ranks", type=int, default=3)
    given = parser.parse_args()
    wrong = 0
    for mpi in given.mpi:
        cells = itertools.product(HOWS, ("inside", "outside"), range(given.ranks))
        for how, where, victim in cells:
            began = time.monotonic()
            found = run(PYTHONS[mpi], how, where, victim, given.ranks, given.survive)
            verdict = "holds" if not found else f"WRONG: {found}"
            seconds = time.monotonic() - began
            print(f"{mpi:8} {how:6} {where:8} rank {victim}  {seconds:5.1f} s  {verdict}", flush=True)
            wrong += bool(found)
    print(f"{wrong} wrong")
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
