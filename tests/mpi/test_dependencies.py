"""Futures as arguments under a real mpiexec: unopened results, child processes, deaths, resuming."""

from collections.abc import Callable
from pathlib import Path

from .conftest import PYTHONS

Run = Callable[..., tuple[int, str, str]]

JOB = """
import os, signal, sys
import numpy as np
import taskfarm
from taskfarm import Farm, task
from taskfarm.errors import DependencyFailed


class Model:
    def __init__(self, weight, data):
        self.weight, self.data = weight, data

    def __setstate__(self, state):
        if "fresh" in sys.argv:
            taskfarm.current()  # raises an error on rank 0, which need not open it
        self.__dict__.update(state)

@task
def make(weight):
    return Model(weight, np.full(300_000, weight))

@task
def weigh(models, extra=0):
    models[0].data[0] += 1
    return sum(int(model.data[:2].sum()) for model in models) + extra

@task(isolate=True, timeout=60)
def child(model, total):
    return model.weight + total

@task
def mortal(total, marker):
    if marker and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return total + 1

@task
def fails(total):
    raise ValueError(total)

@task
def inc(x):
    return x + 1

if __name__ == "__main__":
    one, two = make.submit(1), make.submit(2)
    both = weigh.submit([one, two], extra=one and 5)
    total = child.submit(one, both)
    last = mortal.submit(total, os.path.abspath("died") if "--survive" in sys.argv else "")
    chain = inc.submit(last)
    for _ in range(200):
        chain = inc.submit(chain)
    broken = fails.submit(last)
    others = [weigh.submit([one], extra=broken) for _ in range(3)]
    mapped = list(weigh.map([[one], [two, one]], extra=last))
    print(both.result(), total.result(), last.result(), chain.result(), mapped)
    for other in others:
        error = other.exception()
        assert isinstance(error, DependencyFailed) and isinstance(error.__cause__, ValueError), error
    print("died" if os.path.exists("died") else "lived")
"""


def test_graphs_run_and_resume(run: Run, python: Path) -> None:
    survive = ["--survive"] if python == PYTHONS["openmpi"] else []
    options = ["--journal", "run.db", *survive]
    code, out, err = run(JOB, 4, "fresh", *survive, options=options)
    assert code == 0, err
    assert out.splitlines() == ["12 13 14 215 [17, 21]", "died" if survive else "lived"]
    assert "3 not run because of 1 failure: weigh 3" in err
    code, again, err = run(JOB, 4, *survive, options=[*options, "--resume"])
    assert (code, again) == (0, out), err
    assert "results came from run.db" in err
    assert "\nmake" not in err
    assert "\nfails" in err
