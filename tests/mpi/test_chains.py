"""Chains of short tasks under a real mpiexec: copies, failures, other durations, deaths, resuming."""

from collections.abc import Callable
from pathlib import Path

from .conftest import PYTHONS

Run = Callable[..., tuple[int, str, str]]

JOB = """
import os, signal, sys, time
import numpy as np
from taskfarm import current, task


class Model:
    def __init__(self, steps):
        self.steps = steps

@task
def start(number):
    return Model([number])

@task
def grow(model, number):
    model.steps.append(number)
    return model

@task
def length(model):
    return len(model.steps)

@task
def shift(array, number):
    array += number
    return array

@task(retries=1)
def flaky(value, number):
    if number == 300:
        raise ValueError(number)
    if number % 97 == 0 and current().attempt == 1:
        raise OSError(number)
    return value + number

@task
def uneven(value, number):
    if number % 100 == 50:
        time.sleep(0.05)
    return value + number

@task
def mortal(value, number, marker):
    if marker and number == 200 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return value + number

def chain(first, call, length, *more):
    futures = [first]
    for number in range(1, length):
        futures.append(call.submit(futures[-1], number, *more))
    return futures

if __name__ == "__main__":
    models = chain(start.submit(0), grow, 400)
    lengths = [length.submit(model) for model in models[::50]]
    print([one.result() for one in lengths], models[123].result().steps == list(range(124)))
    arrays = chain(task(np.zeros).submit(5_000), shift, 60)
    print([int(arrays[place].result()[7]) for place in (0, 1, 30, 59)])
    flaky = chain(task(int).submit(0), flaky, 400)
    print(flaky[299].result(), [type(one.exception()).__name__ for one in flaky[300:302]])
    print([chain(task(int).submit(one), uneven, 200)[-1].result() for one in range(3)])
    marker = os.path.abspath("died") if "--survive" in sys.argv else ""
    last = chain(task(int).submit(0), mortal, 300, marker)[-1]
    print(last.result(), bool(marker) == os.path.exists("died"))
"""

PRINTED = [
    "[1, 51, 101, 151, 201, 251, 301, 351] True",
    "[0, 1, 465, 1770]",
    "44850 ['ValueError', 'DependencyFailed']",
    "[19900, 19901, 19902]",
    "44850 True",
]


def test_chains_run_and_resume(run: Run, python: Path) -> None:
    survive = ["--survive"] if python == PYTHONS["openmpi"] else []
    options = ["--journal", "run.db", *survive]
    code, out, err = run(JOB, 4, *survive, options=options)
    assert code == 0, err
    assert out.splitlines() == PRINTED
    assert "99 not run because of 1 failure" in err
    code, again, err = run(JOB, 4, *survive, options=[*options, "--resume"])
    assert (code, again) == (0, out), err
    assert "results came from run.db" in err
    assert "\nmortal" not in err
