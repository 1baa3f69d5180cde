"""What safety costs: the same job plain, with a journal, isolated, and where ranks may die, alternately.

``python -m tests.benchmarks.robust`` starts the runs by itself; with an environment of Open MPI, those
that survive dead ranks, too. Ratios are to the plain run of the same round; medians over the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 5

JOB = """
import json, os, statistics, sys, time
from taskfarm import Farm, as_completed

few = int(sys.argv[1])

def rate(count, run):
    started = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - started)

with Farm() as farm:
    mapped = lambda count: sum(farm.map(abs, range(count)))
    submitted = lambda count: [f.result() for f in [farm.submit(abs, i) for i in range(count)]]
    mapped(20_000 // few)
    trips = []
    for i in range(1000 // few):
        started = time.perf_counter()
        farm.submit(abs, -i).result()
        trips.append(time.perf_counter() - started)
    found = {
        "map": rate(2_000_000 // few**2, mapped),
        "submit": rate(100_000 // few**2, submitted),
        "trip": 1e6 * statistics.median(trips),
    }
print(json.dumps(found))
"""

DEATH = """
import json, os, sys, time
from taskfarm import Farm
from taskfarm.job.current_farm import registry

def die(path):
    with open(path, "w") as file:
        file.write(repr(time.time()))
    os.kill(os.getpid(), 9)

noticed = []
with Farm() as farm:
    sum(farm.map(abs, range(1000)))
    for number in range(3):
        farm.submit(die, f"death{number}")
        master = farm._master
        master.run_until(lambda: len(master.workers.lost) > number, master.deadline(30))
        noticed.append(1e3 * (time.time() - float(open(f"death{number}").read())))
print(json.dumps({"noticed": noticed}))
"""


def run(code: str, words: list[str], *arguments: str, ranks: int = 3) -> dict[str, Any]:
    """Run a job in a folder of its own, and read what it found."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.py").write_text(code)
        command = [sys.executable, "-m", "taskfarm", "run", "-n", str(ranks), *words, "job.py", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
        if (kept := Path(folder) / "run.db").exists():
            found["bytes"] = kept.stat().st_size
        return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    library = subprocess.run(
        [sys.executable, "-m", "taskfarm", "info"], capture_output=True, text=True, check=True
    ).stdout
    survives = "Open MPI" in library
    kinds: dict[str, list[str]] = {
        "plain": [],
        "--journal": ["--journal", "run.db"],
        "--isolate": ["--isolate"],
    }
    if survives:
        kinds["--survive"] = ["--survive"]
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, words in kinds.items():
            results[kind].append(run(JOB, words, "10" if kind == "--isolate" else "1"))
    print(f"\n3 ranks, {library.splitlines()[1].split(maxsplit=1)[1]}; median of {rounds}\n")
    print("| | map, tasks/s | / plain | submit, tasks/s | / plain | round trip, us | / plain |")
    print("|---|---|---|---|---|---|---|")
    for kind, found in results.items():
        cells = [kind]
        for name in ("map", "submit", "trip"):
            ratios = [f[name] / p[name] for f, p in zip(found, results["plain"], strict=True)]
            cells += [
                f"{statistics.median(f[name] for f in found):,.0f}",
                f"{statistics.median(ratios):.2f}",
            ]
        print("| " + " | ".join(cells) + " |")
    kept = results["--journal"]
    for name, tasks in (("map", 2_000_000), ("submit", 100_000)):
        pairs = zip(kept, results["plain"], strict=True)
        cost = statistics.median(1e6 / k[name] - 1e6 / p[name] for k, p in pairs)
        print(f"\nThe journal costs {cost:.2f} us a task of {tasks:,} ({name}).", end="")
    print(f"\n\nIts file has {statistics.median(k['bytes'] for k in kept) / 1e6:.1f} MB.")
    if survives:
        words = ["--survive", "--max-kills", "1"]
        noticed = [ms for _ in range(rounds) for ms in run(DEATH, words, ranks=6)["noticed"]]
        middle = statistics.median(noticed)
        print(f"\nA dead rank is noticed after {middle:.0f} ms, at most {max(noticed):.0f}.")


if __name__ == "__main__":
    main()
