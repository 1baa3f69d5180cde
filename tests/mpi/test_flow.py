"""Callbacks, iterators, threads and interruptions in real runs; the variants are in `tests/job`."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mpi.conftest import Job

Start = Callable[..., Job]
Run = Callable[..., tuple[int, str, str]]

EXCEPTIONS = """
import os
import time

RANK_0 = os.getpid()

class Stringless(Exception):
    def __str__(self):
        raise SystemExit(4)
    __repr__ = __str__

class NoteExits(Exception):
    def add_note(self, note):
        raise SystemExit(4)

class NoException(Exception):
    def __reduce__(self):
        return str, ("text",)

class BecomesExit(Exception):
    def __reduce__(self):
        return SystemExit, (3,)

class HangsOnRank0(Exception):
    def __str__(self):
        if os.getpid() == int(os.environ["RANK_0"]):
            time.sleep(1000)
        return "text"

class Attributeless(Exception):
    def __getattribute__(self, name):
        raise SystemExit(2)

def loads(pid):
    if pid != os.getpid():
        from taskfarm.job.current_farm import registry
        return 0 if registry.current is None else registry.current.submit(abs, -5).result()

class Loads:
    def __reduce__(self):
        return loads, (os.getpid(),)

def loads_by(_):
    return Loads()

def fails(name):
    raise globals()[name]()
"""

JOB = """
import asyncio, os, pathlib, sys, tempfile, threading
from concurrent.futures import wait
os.environ["RANK_0"] = str(os.getpid())
import exceptions
from taskfarm import Farm, compat, task

sys.setswitchinterval(1e-6)

def listed(x):
    return [x]

def looks_for_a_module(_):
    import no_such_module

def looks_for_a_file(_):
    open("no/such/file")

def consume(results, seen):
    for result in results:
        seen.append(result)

def in_threads(function, count=5):
    threads = [threading.Thread(target=function) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

seen, touched = [], []
with Farm() as farm:
    def go_on(future):
        seen.append(future.result())
        if len(seen) < 2000:
            farm.submit(abs, -len(seen)).add_done_callback(go_on)
    farm.submit(abs, 0).add_done_callback(go_on)
    ignored = farm.map(abs, (-x for x in range(70_000)))
assert seen == list(range(2000)), len(seen)
assert list(ignored) == list(range(70_000))

with Farm() as farm:
    for name in ("Stringless", "NoteExits", "NoException", "BecomesExit", "HangsOnRank0", "Attributeless"):
        error = farm.submit(exceptions.fails, name).exception()
        assert isinstance(error, Exception), type(error)
    for raised in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
        def end(_):
            raise raised
        future = farm.submit(abs, -1)
        future.add_done_callback(end)
        assert future.result() == 1
        assert isinstance(task(on_error=end)(exceptions.fails).submit("Stringless").exception(), Exception)
    assert list(farm.map(exceptions.loads_by, range(100))) == [5] * 100
    results, other = farm.starmap(max, [(1, 2)] * 50 + [7] + [(1, 2)] * 50), farm.submit(abs, -3)
    assert other.result() == 3
    seen = []
    try:
        consume(results, seen)
    except TypeError:
        assert seen == [2] * 50
    else:
        raise AssertionError
    for function in (abs, listed):
        results, seen = farm.map(function, (x for x in range(3000))), []
        in_threads(lambda: consume(results, seen))
        assert sorted(seen) == list(map(function, range(3000)))
        seen = []
        in_threads(lambda: seen.append([farm.submit(function, x) for x in range(100)]))
        assert [[future.result() for future in futures] for futures in seen] == [
            list(map(function, range(100)))] * 5
    for _ in range(50):
        pool, called = compat.Pool(), []
        for x in range(5):
            pool.apply_async(listed, (x,), callback=called.append)
        pool.map_async(abs, range(5), callback=called.append)
        pool.close()
        pool.join()
        assert len(called) == 6, called
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
    sys.path[:0] = [None, 3, pathlib.Path("x"), threading.Lock()]
with Farm() as farm:
    assert isinstance(farm.submit(looks_for_a_module, 0).exception(), ModuleNotFoundError)
    assert isinstance(farm.submit(looks_for_a_file, 0).exception(), FileNotFoundError)
    assert farm.submit(abs, -1).result() == 1
    farm.submit(divmod, 1, 0)
print("all is well")

@task
def more(x):
    return x

def go_on_for_ever():
    while True:
        more.submit(1)

threading.Thread(target=go_on_for_ever, daemon=True).start()
"""


def test_callbacks_iterators_and_threads(start: Start, tmp_path: Path) -> None:
    (tmp_path / "exceptions.py").write_text(EXCEPTIONS)
    code, out, err = start(JOB, 3, options=["--fail-on-unseen"]).end()
    assert out == "all is well\n", err
    assert code == 4, err
    assert "taskfarm: 1 failure was never looked at" in err
    assert "ZeroDivisionError" in err


STORM = """
import random, signal, sys, threading, time
from taskfarm import Farm

def square(x):
    return x * x

def pair(x):
    return [x, str(x)]

def insist(function, depth=6):
    while True:
        try:
            insist(function, depth - 1) if depth else function()
        except KeyboardInterrupt:
            continue
        return

futures, main, sent, deadline = {}, threading.get_ident(), [], time.monotonic() + 200

def over():
    return len(sent) >= 300 or time.monotonic() > deadline

def interrupt():
    sys.setswitchinterval(1e-4)
    while not over():
        time.sleep(0.005 * random.random())
        signal.pthread_kill(main, signal.SIGINT)
        sent.append(1)

def work():
    if thread.ident is None:
        thread.start()
    while not over():
        x = len(futures)
        futures[x] = farm.submit(pair if x % 2 else square, x)
        if x % 20 == 0:
            futures[x].result()
    thread.join()
    time.sleep(0.05)

with Farm() as farm:
    maps = [farm.map(square, (x for x in range(50_000))), farm.map(pair, range(5_000))]
    thread = threading.Thread(target=interrupt)
    insist(work)
    assert len(sent) == 300
    assert list(maps[0]) == list(map(square, range(50_000)))
    assert list(maps[1]) == list(map(pair, range(5_000)))
    assert all(future.result() == (pair if x % 2 else square)(x) for x, future in futures.items())
with Farm() as farm:
    print(farm.submit(square, 3).result())
"""


def test_storm_of_interruptions_that_the_job_catches(run: Run) -> None:
    code, out, err = run(STORM, 3)
    assert (code, out) == (0, "9\n"), err


ENDLESS = """
from taskfarm import Farm
with Farm() as farm:
    def go_on(future):
        farm.submit(abs, -1).add_done_callback(go_on)
    go_on(None)
    open("started", "w").close()
"""


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_endless_chain_of_callbacks_is_ended_by_a_signal(
    start: Start, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    job = start(ENDLESS, 3)
    job.wait_for(tmp_path / "started")
    job.process.send_signal(number)
    code, _, err = job.end()
    # Open MPI's mpiexec ends with 1 after Ctrl-C.
    assert code in (expected, 1), err
    assert "exception calling callback" in err or number == signal.SIGINT, err
