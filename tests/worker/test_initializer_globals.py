"""Globals that the initializer sets in ``__main__`` are there for the tasks, as where it is shared."""

import subprocess
import sys
from pathlib import Path

JOB = """
import sys
from functools import partial
from taskfarm import Farm, task, testing

scale = 2

def load(name):
    global table
    table = {"name": name}

def helper():
    return table["name"]

def plain(x):
    return scale * x, table["name"]

@task
def decorated(x):
    return helper(), x

class Bound:
    def method(self, x):
        return x, table["name"]

def found(farm):
    with farm:
        return [
            *farm.map(plain, [1, 2]),
            decorated.submit(3).result(),
            farm.submit(partial(plain, 3)).result(),
            farm.submit(Bound().method, 4).result(),
            farm.submit(decorated.options(isolate=True), 5).result(),
        ]

if __name__ == "__main__":
    for name in ("first", "second"):
        print(found(Farm(initializer=load, initargs=(name,))))
        scale += 1
"""


def run(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "job.py").write_text(code)
    words = [sys.executable, "job.py"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240)


def test_globals_that_the_initializer_sets(tmp_path: Path) -> None:
    done = run(JOB, tmp_path)
    assert done.returncode == 0, done.stderr
    for line, (name, scale) in zip(done.stdout.splitlines(), (("first", 2), ("second", 3)), strict=True):
        found = [(scale, name), (2 * scale, name), (name, 3), (3 * scale, name), (4, name), (name, 5)]
        assert line == str(found)


def test_without_an_initializer_nothing_is_shared(tmp_path: Path) -> None:
    done = run(JOB.replace("Farm(initializer=load, initargs=(name,))", "Farm()"), tmp_path)
    assert "NameError: name 'table' is not defined" in done.stderr
