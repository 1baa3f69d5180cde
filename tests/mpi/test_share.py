"""Shared data under a real mpiexec: one copy on the host, in children, too, and nothing left behind."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PYTHONS, Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

FILES = """
import os

def files():
    '''The files in memory of at least a megabyte that this process has, by inode.'''
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{number}")
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "memfd:taskfarm-shared" in name and status.st_size > 1 << 20:
            found.add(status.st_ino)
    return found
"""

HEAD = (
    FILES
    + """
import itertools, os, sys, time
import numpy as np
import taskfarm
from taskfarm import Farm, task

@task
def total(x, table):
    time.sleep(0.02)
    return x + float(table.sum()), table.flags.writeable, os.getpid(), files()

@task
def nothing(x):
    time.sleep(0.02)
    return os.getpid(), files()
"""
)

ONE_COPY = (
    HEAD
    + """
if __name__ == "__main__":
    with taskfarm.share(np.ones(1_000_000)) as table:
        for one in (total, total.options(isolate=True)):
            found = list(one.map(range(60), itertools.repeat(table), chunksize=1))
            assert [value[:2] for value in found] == [(x + 1e6, False) for x in range(60)]
            print(len({pid for _, _, pid, _ in found}), len(set().union(*(f for *_, f in found))))
    found = list(nothing.map(range(60), chunksize=1))
    print(len({pid for pid, _ in found}), set().union(*(f for _, f in found)), files())
    found = list(nothing.options(isolate=True).map(range(60), chunksize=1))
    print(len({pid for pid, _ in found}), set().union(*(f for _, f in found)))
"""
)


def test_all_ranks_and_their_children_see_one_copy_and_give_it_back(run: Run) -> None:
    code, out, err = run(ONE_COPY, 5)
    assert code == 0, err
    assert out.splitlines() == ["4 1", "4 1", "4 set() set()", "4 set()"]


COLLECTED = (
    HEAD
    + """
if __name__ == "__main__":
    for number in range(4):
        table = taskfarm.share(np.full(1_000_000, number))
        found = list(total.map(range(12), table=table, chunksize=1))
        assert {value for value, *_ in found} == {x + number * 1e6 for x in range(12)}
        assert all(len(f) == 1 for *_, f in found), found
    del table
    found = list(nothing.map(range(60), chunksize=1))
    print(set().union(*(f for _, f in found)), files())
"""
)


def test_a_handle_that_is_replaced_gives_its_memory_back(run: Run) -> None:
    code, out, err = run(COLLECTED, 3)
    assert (code, out) == (0, "set() set()\n"), err


PSS = (
    HEAD
    + """
def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1e3

def all_pss():
    pids = {os.getpid()}
    while len(pids) < 9:
        pids |= {pid for pid, _ in nothing.map(range(40), chunksize=1)}
    return sum(map(pss, pids))

if __name__ == "__main__":
    list(total.map(range(40), itertools.repeat(taskfarm.share(np.ones(1000))), chunksize=1))
    before = all_pss()
    table = taskfarm.share(np.ones(25_000_000))
    pids = set()
    while len(pids) < 8:
        pids |= {pid for _, _, pid, _ in total.map(range(40), itertools.repeat(table), chunksize=1)}
    print("grown by", round(all_pss() - before), "MB")
    table.free()
    print("then by", round(all_pss() - before), "MB")
"""
)


def test_memory_of_all_ranks_grows_by_one_copy(run: Run) -> None:
    code, out, err = run(PSS, 9)
    assert code == 0, err
    first, second = (float(line.split()[2]) for line in out.splitlines())
    assert 190 < first < 260, out
    assert second < 50, out


BUILD = (
    HEAD
    + """
def made(size):
    with open(f"made-{os.getpid()}", "a") as file:
        file.write("x")
    return np.ones(size)

if __name__ == "__main__":
    for per in ("host", "worker"):
        for one in (total, total.options(isolate=True)):
            handle = taskfarm.build(made, 1_000_000, per=per)
            found = list(one.map(range(40), itertools.repeat(handle), chunksize=1))
            assert {value[:2] for value in found} == {(x + 1e6, per == "worker") for x in range(40)}
            calls = [len(open(name).read()) for name in os.listdir(".") if name.startswith("made-")]
            print(per, len(calls), max(calls))
            for name in os.listdir("."):
                if name.startswith("made-"):
                    os.remove(name)
    handle = taskfarm.build(open, "/missing/file")
    for one in (total, total.options(isolate=True)):
        errors = [one.submit(x, handle).exception() for x in range(6)]
        print({type(error).__name__ for error in errors}, "FileNotFoundError" in str(errors[-1]))
"""
)


def test_what_is_built_is_built_once_for_a_host_or_on_each_worker(run: Run) -> None:
    code, out, err = run(BUILD, 4)
    assert code == 0, err
    assert out.splitlines() == [
        *("host 1 1", "host 1 1", "worker 3 1", "worker 3 1"),
        *["{'BuildFailed'} True"] * 2,
    ]


CRASH = (
    HEAD
    + """
def crashes_once():
    try:
        os.close(os.open("crashed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return np.ones(1_000_000)
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    handle = taskfarm.build(crashes_once)
    one = total.options(isolate=True)
    futures = [one.submit(x, handle) for x in range(12)]
    errors = [future.exception() for future in futures]
    print(sum(error is None for error in errors) > 0)
    print({type(error).__name__ for error in errors} - {"NoneType", "TaskCrashed", "BuildFailed"})
    print(one.submit(1, handle).result()[0])
"""
)


def test_a_child_that_dies_while_it_builds_for_its_host_keeps_nobody_waiting(run: Run) -> None:
    code, out, err = run(CRASH, 4)
    assert (code, out) == (0, "True\nset()\n1000001.0\n"), err


ROOM = (
    HEAD
    + """
if __name__ == "__main__":
    huge = np.memmap("sparse", np.uint8, "w+", shape=1 << 42)
    try:
        taskfarm.share(np.asarray(huge))
    except taskfarm.errors.HostMemoryError as error:
        print(error)
    os.remove("sparse")
    print(total.submit(1, np.ones(3)).result()[0])
"""
)


def test_a_host_without_room_says_so_before_anything_is_written(run: Run) -> None:
    code, out, err = run(ROOM, 2)
    assert code == 0, err
    assert f"{os.uname().nodename} has no room for shared data: it needs 4.398e+06 MB, and" in out
    assert out.endswith("4.0\n")


LIMITED = (
    HEAD
    + """
@task
def limited(handles):
    import resource

    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 50_000_000, resource.RLIM_INFINITY))
    return float(handles[0].value.sum())

if __name__ == "__main__":
    table = taskfarm.share(np.ones(20_000_000))
    for options in ({}, {"isolate": True}):
        error = limited.options(**options).submit([table]).exception()
        print(type(error).__name__, "160 MB" in str(error))
"""
)


def test_a_worker_that_may_not_map_so_much_fails_the_task(run: Run) -> None:
    code, out, err = run(LIMITED, 2)
    assert (code, out) == (0, "HostMemoryError True\n" * 2), err


BLIND = (
    HEAD
    + """
@task
def make_blind(x):
    from taskfarm.transport.segments import Segment

    def refuse(cls, location):
        raise PermissionError("processes here cannot see each other")

    Segment.open = classmethod(refuse)
    time.sleep(0.05)
    return taskfarm.current().rank

if __name__ == "__main__":
    for options in ({"isolate": True}, {}):
        ranks = set()
        while len(ranks) < 3:
            ranks |= set(make_blind.options(**options).map(range(9), chunksize=1))
        table = taskfarm.share(np.ones(300_000))
        found = list(total.options(**options).map(range(30), itertools.repeat(table), chunksize=1))
        assert [value for value, *_ in found] == [x + 3e5 for x in range(30)]
        inodes = set().union(*(files for *_, files in found))
        print(len(inodes), len({pid for _, _, pid, _ in found}))
        table.free()
"""
)


def test_where_processes_cannot_see_each_other_each_has_a_copy(run: Run) -> None:
    code, out, err = run(BLIND, 4)
    assert code == 0, err
    assert out.splitlines() == ["3 3", "3 3"]


SURVIVE = (
    HEAD
    + """
@task(retries=0)
def dies(x, table):
    time.sleep(0.01)
    if taskfarm.current().rank in (1, 3) and x > 20:
        os.kill(os.getpid(), 9)
    return x + float(table.sum())

if __name__ == "__main__":
    table = taskfarm.share(np.ones(1_000_000))
    built = taskfarm.build(np.ones, 1_000_000)
    for handle in (table, built):
        found = list(dies.map(range(100), itertools.repeat(handle), chunksize=1))
        print(found == [x + 1e6 for x in range(100)])
"""
)


@pytest.mark.usefixtures("survives")
def test_lost_workers_change_no_value(run: Run) -> None:
    code, out, err = run(SURVIVE, 6, options=["--survive"])
    assert (code, out) == (0, "True\nTrue\n"), err


KILLED = (
    HEAD
    + """
if __name__ == "__main__":
    table = taskfarm.share(np.ones(1_000_000))
    list(total.map(range(20), itertools.repeat(table), chunksize=1))
    open("ready", "w").close()
    time.sleep(120)
"""
)


def leftovers() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "taskfarm" in name}


def test_nothing_is_left_when_all_are_killed(start: Start, tmp_path: Path) -> None:
    before = leftovers()
    job = start(KILLED, 3)
    job.wait_for(tmp_path / "ready")
    for entry in job.pids.iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(entry.name), 9)
    job.end()
    assert leftovers() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"hooks", "pids", "job.py", "ready"}
    deadline = time.monotonic() + 60
    while still_held(job) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not still_held(job)


def still_held(job: Job) -> list[str]:
    return [entry.name for entry in job.pids.iterdir() if Path(f"/proc/{entry.name}").exists()]


JOURNAL = (
    HEAD
    + """
@task
def noted(x, table):
    with open("calls", "a") as file:
        file.write("x")
    return x + float(table.sum())

if __name__ == "__main__":
    size, how = int(sys.argv[1]), sys.argv[2]
    table = np.arange(size) if how == "plain" else taskfarm.share(np.arange(size))
    print(list(noted.map(range(3), itertools.repeat(table))), noted.submit(4, table=table).result())
    print(list(noted.map(range(3), table=table)))
"""
)


def test_in_the_journal_a_shared_argument_counts_by_its_content(start: Start, tmp_path: Path) -> None:
    def outcome(*words: str) -> tuple[str, int]:
        code, out, err = start(JOURNAL, 3, *words, options=["--journal", "j", "--resume"]).end()
        assert code == 0, err
        return out, len((tmp_path / "calls").read_text())

    first = outcome("10", "shared")
    assert first[1] == 7
    assert outcome("10", "shared") == first
    other, calls = outcome("11", "shared")
    assert (other != first[0], calls) == (True, 14)
    # It counts as if it was not shared.
    assert outcome("10", "plain") == (*first[:1], 14)


ANYWHERE = (
    HEAD
    + """
from concurrent.futures import ThreadPoolExecutor

class Box:
    def __init__(self, table):
        self.table = table

@task
def in_threads(x, box):
    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(lambda _: float(box.table.value.sum()), range(8)))

@task
def in_forks(box):
    def code():
        if not (pid := os.fork()):
            try:
                os._exit(int(box.table.value.sum()) // 100_000)
            except taskfarm.errors.SharedDataError:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return code(), len(box.table.value), code()

@task
def by_global(x):
    return float(table.value.sum())

def closure(handle):
    return lambda x: x + float(handle.value.sum())

if __name__ == "__main__":
    table = taskfarm.share(np.ones(200_000))
    for options in ({}, {"isolate": True}):
        other = taskfarm.share(np.ones(200_000))
        print(set(in_threads.options(**options).map(range(9), itertools.repeat(Box(other)), chunksize=1)))
        print(set(by_global.options(**options).map(range(9), chunksize=1)))
        with Farm() as farm:
            work = task(closure(other), **options)
            print(list(work.map(range(3), chunksize=1)))
    print(in_forks.submit(Box(taskfarm.share(np.ones(200_000)))).result())
    made = taskfarm.build(Box, table, per="worker")
    print({type(box).__name__ for box in task(lambda box: box).map(itertools.repeat(made, 4), chunksize=1)})
    table = taskfarm.share(np.ones(300_000))
    print(set(by_global.map(range(9), chunksize=1)))
    handles = [taskfarm.share(np.full(100_000, float(number))) for number in range(20)]
    print([total.submit(0, handle).result()[0] for handle in handles] == [n * 1e5 for n in range(20)])
"""
)


def test_handles_are_loaded_in_threads_by_globals_in_closures_and_objects(run: Run) -> None:
    code, out, err = run(ANYWHERE, 4)
    assert code == 0, err
    once = ["{1600000.0}", "{200000.0}", "[200000.0, 200001.0, 200002.0]"]
    assert out.splitlines() == [*once, *once, "(1, 200000, 2)", "{'Box'}", "{300000.0}", "True"]


SPMD = """
import itertools
import numpy as np
import taskfarm
from mpi4py import MPI
from taskfarm import Farm

def total(x, table):
    return x + float(table.sum())

if __name__ == "__main__":
    for root in (0, 1):
        with Farm.from_comm(MPI.COMM_WORLD, root=root) as farm:
            if farm is not None:
                table = taskfarm.share(np.ones(1_000_000))
                found = list(farm.map(total, range(20), itertools.repeat(table)))
                print(found == [x + 1e6 for x in range(20)], flush=True)
"""


def test_in_a_program_that_all_ranks_run(python: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SPMD)
    words = ["-n", "3", str(python), "-m", "mpi4py", "program.py"]
    if python == PYTHONS["openmpi"]:
        words.insert(0, "--oversubscribe")
    code, out, err = Job(python.with_name("mpiexec"), words, tmp_path).end()
    assert (code, out) == (0, "True\nTrue\n"), err
