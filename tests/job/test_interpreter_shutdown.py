"""Once the interpreter shuts down, nothing can be submitted, and nothing hangs."""

import subprocess
import sys

LATE = """
import atexit, os, sys
from taskfarm import Farm, task
from taskfarm.compat import MPIPoolExecutor, Pool

def late(name, call):
    try:
        print(name, call(), flush=True)
    except RuntimeError as error:
        print(name, str(error).partition(" after ")[0], flush=True)

if len(sys.argv) > 1:
    farm, pool = Farm(), Pool()
    atexit.register(late, "submit", lambda: farm.submit(abs, -3).result())
    atexit.register(late, "map", lambda: list(farm.map(abs, [-3])))
    atexit.register(late, "apply", lambda: pool.apply(abs, (-3,)))
    print(farm.submit(abs, -3).result(), flush=True)
    if not os.fork():
        sys.exit()
    os.wait()
for name, call in {
    "farm": Farm, "pool": Pool, "executor": MPIPoolExecutor, "task": lambda: task(abs).submit(-3).result()
}.items():
    atexit.register(late, name, call)
"""


def late(*words: str) -> list[str]:
    command = [sys.executable, "-c", LATE, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nothing_can_be_opened_or_submitted() -> None:
    opened = [f"{name} cannot schedule new futures" for name in ("task", "executor", "pool", "farm")]
    submitted = [f"{name} cannot schedule new futures" for name in ("apply", "map", "submit")]
    assert late() == opened
    lines = late("open")
    assert lines[0] == "3"
    # The fork has atexit handlers, too.
    assert sorted(lines[1:]) == sorted(2 * submitted + opened)
