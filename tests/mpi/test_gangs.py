"""Tasks on several ranks under both MPIs: results, and every way in which a member can fail."""

import re
from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]

MIX = """
import random, sys, time
import taskfarm
from taskfarm import Farm, task
from taskfarm.errors import UsageError
from taskfarm.master import gangs

gangs.MAX_COMMUNICATORS = 3

@task
def alone(x):
    time.sleep(random.choice([0, 0, 0.002]))
    assert taskfarm.comm().size == 1
    return x

@task(retries=2)
def together(n, ranks):
    comm = taskfarm.comm()
    assert comm.size == ranks
    total = comm.allreduce(n * comm.rank)
    draws = comm.allgather(int(taskfarm.rng().integers(2**62)))
    assert len(set(draws)) == ranks
    if comm.rank:
        return lambda: "nobody pickles this: " + str(open)
    return total, draws

@task(ranks=2)
def fails(n):
    comm = taskfarm.comm()
    if n % 2:
        # Strays, which the next task must not get.
        requests = [comm.isend("stray", dest=1 - comm.rank, tag=5)]
    if comm.rank == n // 2 % 2:
        raise ValueError(n)
    time.sleep(60 if n > 3 else 0)

@task(ranks=2)
def receives(n):
    comm = taskfarm.comm()
    comm.send(n, dest=1 - comm.rank, tag=5)
    return comm.recv(source=1 - comm.rank, tag=5)

@task(ranks=2)
def leaves(n):
    comm = taskfarm.comm()
    comm.isend(-n, dest=1 - comm.rank, tag=5)
    if n % 2:
        comm.Isend(bytearray(3_000_000), dest=1 - comm.rank, tag=6)
    return n

@task
def submits():
    return receives.submit(1).result()

@task(ranks=2)
def submits_too():
    return alone.submit(1).result()

@task(ranks=3, hosts=1)
def frees():
    taskfarm.comm().Free()

def refused(function, *args):
    try:
        function.submit(*args).result()
    except UsageError as error:
        return str(error)

if __name__ == "__main__":
    draw = random.Random(1)
    sizes = [draw.choice([2, 2, 3, 4]) for _ in range(60)]
    plain = alone.map(range(400))
    futures = [together.options(ranks=ranks).submit(n, ranks) for n, ranks in enumerate(sizes)]
    for n, (ranks, future) in enumerate(zip(sizes, futures)):
        assert future.result()[0] == n * ranks * (ranks - 1) // 2
    assert list(plain) == list(range(400))
    for n in range(6):
        error = fails.submit(n).exception()
        assert type(error) is ValueError and error.args == (n,), error
        assert receives.submit(n).result() == n
    for n in range(1, 6):
        # Nor do those of a task that has succeeded reach the next one.
        assert leaves.submit(n).result() == n
        assert list(receives.map([n, n + 1, n + 2])) == [n, n + 1, n + 2]
    assert [frees.submit().result() for _ in range(3)] == [None] * 3
    assert list(receives.map(range(20))) == list(range(20))
    with Farm(seed=7) as farm:
        first = [farm.submit(together.options(ranks=2), n, 2).result()[1] for n in range(3)]
    with Farm(seed=7) as farm:
        assert first == [farm.submit(together.options(ranks=2), n, 2).result()[1] for n in range(3)]
    print(refused(together.options(ranks=5), 0, 5))
    print(refused(together.options(ranks=2, timeout=1), 0, 2))
    print(refused(frees.options(ranks=9)))
    print(refused(submits))
    print(refused(submits_too))
    assert receives.submit(alone.submit(3)).result() == 3
    try:
        with Farm(max_workers=1) as farm:
            farm.submit(frees)
    except UsageError as error:
        print(error)
"""


def test_tasks_on_one_rank_and_on_several_in_one_pool(run: Run) -> None:
    code, out, err = run(MIX, 5)
    assert code == 0, err
    assert "left behind" not in err
    lines = out.splitlines()
    assert lines[0] == (
        "together needs 5 ranks, and there are 4 workers: start with more ranks, or give the task fewer"
    )
    assert lines[1].startswith("together needs 2 ranks, so it can have no timeout, memory, isolate")
    assert "frees needs 9 ranks" in lines[2]
    assert "so a task cannot submit it" in lines[3]
    assert "a task on several ranks cannot submit tasks" in lines[4]
    assert lines[5] == "frees needs 3 ranks, and its farm has max_workers=1"


ENDS_THE_RUN = """
import os, signal, sys, time
import taskfarm
from taskfarm import task

@task
def before(x):
    return x

@task(ranks=3)
def solve(how):
    comm = taskfarm.comm()
    comm.barrier()
    if comm.rank == 1 and how == "raise":
        raise ValueError("no convergence")
    if comm.rank == 1 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return comm.allreduce(1)

if __name__ == "__main__":
    print(sum(before.map(range(10))), flush=True)
    solve.submit(sys.argv[1]).result()
    print("done", flush=True)
"""


def test_what_ends_the_run_is_said_in_one_line_and_the_run_goes_on_from_its_journal(run: Run) -> None:
    options = ["--grace", "1.5", "--journal", "j"]
    code, out, err = run(ENDS_THE_RUN, 4, "raise", options=options)
    assert code == 1
    assert "done" not in out
    line = next(line for line in err.splitlines() if "this MPI cannot end" in line)
    assert "task 10 solve on ranks 1, 2, 3 failed on rank 2 (ValueError: no convergence)" in line
    # A rank that gets no core may be late with its answer, or still in the barrier.
    assert (
        len(re.findall(r"rank [13] (?:is at \S+job.py, line \d+, in solve|does not answer)", line)) == 2
    ), line
    code, out, err = run(ENDS_THE_RUN, 4, "kill", options=[*options, "--resume"])
    assert code
    assert "done" not in out
    (line,) = [line for line in err.splitlines() if "this run ended during" in line]
    assert "task 10 solve on ranks 1, 2, 3: if nobody else has ended it" in line
    assert line.endswith("go on with --resume")
    code, out, err = run(ENDS_THE_RUN, 4, "well", options=[*options, "--resume"])
    assert (code, out.splitlines()) == (0, ["45", "done"]), err
    assert "10 results came from j" in err
    assert "this run ended" not in err


SURVIVES = """
import os, signal, sys, time
import taskfarm
from taskfarm import task
from taskfarm.errors import TaskKilledWorkers, WorkerLost

@task(ranks=2)
def solve(number, how, where, victim):
    comm = taskfarm.comm()
    comm.barrier()
    if number is not None:
        open(f"started-{number}", "w").close()
        while not all(os.path.exists(f"started-{each}") for each in range(4)):
            time.sleep(0.01)
    if comm.rank == victim:
        if where == "outside":
            time.sleep(0.1)
        if how == "raise":
            raise ValueError(how)
        elif how == "leave":
            sys.exit(3)
        elif how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "inside":
        comm.allreduce(1)
    else:
        time.sleep(100)

@task
def alone(x):
    return x

@task
def together(x):
    return taskfarm.comm().allreduce(x)

if __name__ == "__main__":
    for how, error in ("raise", "ValueError"), ("leave", "TaskExited"):
        for where in ("inside", "outside"):
            for victim in (0, 1):
                found = solve.submit(None, how, where, victim).exception()
                assert type(found).__name__ == error, (how, where, victim, found)
    plain = alone.map(range(100))
    deaths = [("kill", "inside", 0), ("exit", "inside", 1), ("kill", "outside", 1), ("exit", "outside", 0)]
    futures = [solve.submit(number, *death) for number, death in enumerate(deaths)]
    errors = [type(future.exception()) for future in futures]
    assert errors == [TaskKilledWorkers] * 4, errors
    assert sum(plain) == 4950
    print(sum(alone.map(range(100))), flush=True)
    # Those that are left form new groups.
    assert [together.options(ranks=ranks).submit(ranks).result() for ranks in (2, 3, 4)] == [4, 9, 16]
    try:
        together.options(ranks=5).submit(1)
    except WorkerLost as error:
        print(error, flush=True)
"""


@pytest.mark.usefixtures("survives")
def test_whatever_a_member_does_ends_its_task_only_where_ranks_may_die(run: Run) -> None:
    code, out, err = run(SURVIVES, 9, options=["--survive", "--grace", "10", "--max-kills", "1"])
    assert code == 0, err
    assert out.startswith("4950\ntogether needs 5 ranks, and there are 4 workers; lost: rank")
    assert "lost 4 of 8 workers" in err
