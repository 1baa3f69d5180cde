"""What goes wrong in a task fails that one task with an error that says what to do; the farm goes on."""

import re
from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

HEAD = """
import os, sys, threading
from taskfarm import Farm, task, as_completed, wait
from taskfarm.errors import *

def error_of(future):
    error = future.exception(timeout=240)
    print(type(error).__name__, "|", " ".join(str(error).split()))
    return error

def still_works(farm):
    assert farm.submit(pow, 2, 10).result(timeout=240) == 1024
    print("still works")
"""

CASES = {
    "exception": (
        """
def broken(x):
    return [1, 2][x]

with Farm() as farm:
    error = error_of(farm.submit(broken, 5))
    trace = str(error.__cause__)
    assert "job.py" in trace and "in broken" in trace and "return [1, 2][x]" in trace, trace
    assert "task 0 broken(5) on rank " in trace, trace
    still_works(farm)
""",
        ["IndexError | list index out of range"],
    ),
    "exception in a map": (
        """
def inverse(x):
    return 1 / x

with Farm() as farm:
    got = []
    try:
        for value in farm.map(inverse, [4, 2, 1, 0, 5]):
            got.append(value)
    except ZeroDivisionError as error:
        print(got, error, "rank" in str(error.__cause__))
    still_works(farm)
""",
        ["[0.25, 0.5, 1.0]", "division by zero True"],
    ),
    "unpicklable argument": (
        """
with Farm() as farm:
    error_of(farm.submit(len, threading.Lock()))
    rest = farm.map(str, [1, threading.Lock(), 3])
    assert next(rest) == "1"
    try:
        next(rest)
    except CallNotPicklable as error:
        print("map:", error)
    still_works(farm)
""",
        ["CallNotPicklable | an argument cannot be pickled", "map: an argument", "Pass plain data"],
    ),
    "unpicklable function": (
        """
log = open(os.devnull, "w")
def logged():
    log.write("x")

with Farm() as farm:
    error_of(farm.submit(logged))
    try:
        list(farm.map(lambda x: log, [1]))
    except CallNotPicklable as error:
        print("map:", error)
    still_works(farm)
""",
        ["CallNotPicklable | the function logged cannot be pickled", "map: the function"],
    ),
    "unpicklable result": (
        """
def lock(x):
    return threading.Lock() if x == 1 else x

with Farm() as farm:
    error_of(farm.submit(lock, 1))
    print(list(farm.map(lock, [0, 2])))
    still_works(farm)
""",
        ["ResultNotPicklable | the result of lock, of type lock, cannot be pickled", "[0, 2]"],
    ),
    "result that cannot be unpickled": (
        """
class Bad:
    def __reduce__(self):
        return int, ("no number",)

with Farm() as farm:
    error_of(farm.submit(Bad))
    error_of(farm.submit(len, Bad()))
    still_works(farm)
""",
        ["ResultNotLoadable | the result of task N cannot be unpickled", "CallNotLoadable | an argument"],
    ),
    "exception that cannot be pickled": (
        """
class Holds(Exception):
    def __init__(self, lock):
        super().__init__("holds a lock", lock)

def raises():
    raise Holds(threading.Lock())

with Farm() as farm:
    error = error_of(farm.submit(raises))
    assert "in raises" in str(error.__cause__)
    still_works(farm)
""",
        ["ExceptionNotPicklable | the task raised an exception that cannot be sent", "Holds"],
    ),
    "exception that cannot be unpickled": (
        """
class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one)

def raises():
    raise TwoArguments(1, 2)

with Farm() as farm:
    error_of(farm.submit(raises))
    still_works(farm)
""",
        ["ExceptionNotPicklable | the task raised an exception that cannot be sent", "TwoArguments: 1"],
    ),
    "end of the program": (
        """
def ends(error):
    raise error

with Farm() as farm:
    for error in (SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit()):
        error_of(farm.submit(ends, error))
    still_works(farm)
""",
        [
            "TaskExited | task N ends(SystemExit(3)) raised SystemExit: 3",
            "TaskExited | task N ends(KeyboardInterrupt()) raised KeyboardInterrupt",
            "TaskExited | task N ends(StopIteration()) raised StopIteration",
            "TaskExited | task N ends(GeneratorExit()) raised GeneratorExit",
        ],
    ),
    "infinite recursion": (
        """
def recurse(x):
    return recurse(x + 1)

def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value

with Farm() as farm:
    error_of(farm.submit(recurse, 0))
    error_of(farm.submit(nested))
    still_works(farm)
""",
        ["RecursionError | maximum recursion depth exceeded", "ResultNotPicklable | the result of nested"],
    ),
    "module missing on the worker": (
        """
import types
module = types.ModuleType("only_here")
exec("def f():\\n    return 1\\nclass C: pass", module.__dict__)
sys.modules["only_here"] = module

with Farm() as farm:
    error_of(farm.submit(module.f))
    error_of(farm.submit(id, module.C()))
    still_works(farm)
""",
        [
            "CallNotLoadable | the function cannot be unpickled",
            "Install the module 'only_here' for the workers too",
            "CallNotLoadable | an argument cannot be unpickled",
        ],
    ),
    "task that opens a farm": (
        """
def submits():
    with Farm() as inner:
        return inner.submit(abs, 1).result()

with Farm() as farm:
    error_of(farm.submit(submits))
    still_works(farm)
""",
        ["UsageError | a task cannot open or use a Farm: call submit or map of a @task function"],
    ),
}


def test_each_costs_one_task(run: Run) -> None:
    # One job for all: each case opens a farm of its own.
    parts = [f"print({f'== {case}'!r}, flush=True)\n{body}" for case, (body, _) in CASES.items()]
    code, out, err = run(HEAD + "\n".join(parts), 3)
    assert code == 0, out + err
    # Tasks are numbered through all farms of a job.
    out = re.sub(r"task \d+", "task N", out)
    printed = {part.partition("\n")[0]: part.partition("\n")[2] for part in out.split("== ")[1:]}
    for case, (_, expected) in CASES.items():
        for text in [*expected, "still works"]:
            assert text in printed[case], f"{case}: {text}\n{out}\n{err}"
