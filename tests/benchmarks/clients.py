"""Times of the programs in examples/clients: python -m tests.benchmarks.clients

In Markdown: serial, ProcessPoolExecutor with 2 processes (joblib: loky), taskfarm with 3 ranks, that is 2
workers. Each is a process of its own; the start is not counted, the best of 5 counts. All must give the
same answer.
"""

import argparse
import importlib
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("scipy", "emcee", "dynesty", "joblib", "adaptive", "optuna")
EXECUTORS = ("adaptive", "optuna")
WAYS = ("serial", "processes", "taskfarm")
ROUNDS = 5


def workers(client: str, way: str) -> Any:
    """What the program calls its pool, executor or backend."""
    if client == "joblib":
        return {"serial": "sequential", "processes": "loky", "taskfarm": "taskfarm"}[way]
    if way == "serial":
        return None
    if way == "processes":
        return ProcessPoolExecutor(2)
    from taskfarm import Farm
    from taskfarm.compat import Pool

    return Farm() if client in EXECUTORS else Pool()


def measure(client: str, way: str) -> None:
    """Print the time of the best of some rounds, in seconds, and the answer."""
    sys.path.insert(0, str(ROOT / "examples/clients"))
    program = importlib.import_module(f"with_{client}")
    pool = workers(client, way)
    # The first one imports what it needs, and starts the processes.
    answer, seconds = program.answer(pool), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        assert program.answer(pool) == answer
        seconds.append(time.perf_counter() - started)
    print(f"{min(seconds):.2f} {answer}", flush=True)


def table() -> str:
    """Run everything."""
    lines = ["| | " + " | ".join(WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for client in CLIENTS:
        cells, answers = [], set()
        for way in WAYS:
            words = [sys.executable, __file__, client, way]
            if way == "taskfarm":
                words[1:1] = ["-m", "taskfarm", "run", "-n", "3", "--quiet"]
            environ = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
            done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            seconds, _, answer = done.stdout.partition(" ")
            cells.append(f"{seconds} s")
            answers.add(answer)
        assert len(answers) == 1, answers
        lines.append(f"| {client} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", nargs="?", choices=CLIENTS, help="only this one")
    parser.add_argument("way", nargs="?", choices=WAYS)
    options = parser.parse_args()
    if options.way is None:
        print(table())
    else:
        measure(options.client, options.way)
