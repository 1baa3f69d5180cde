"""What tasks and the job leave behind does not keep a run from ending, and is named."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., Job]

LEAVES = """
import atexit, concurrent.futures, logging, multiprocessing, os, subprocess, sys, threading, time
from taskfarm import Farm, task

def thread():
    threading.Timer(3600, print).start()

def printing():
    def prints():
        while True:
            print("spam")
    threading.Thread(target=prints, daemon=True).start()

def logging_():
    logger = logging.StreamHandler(sys.stdout)
    def logs():
        while True:
            logger.handle(logging.makeLogRecord({"msg": "spam"}))
    threading.Thread(target=logs, daemon=True).start()

def executor():
    concurrent.futures.ThreadPoolExecutor(1, "endless").submit(time.sleep, 3600)

def processes():
    concurrent.futures.ProcessPoolExecutor(1).submit(time.sleep, 3600)

def program():
    subprocess.Popen(["sleep", "3601"])

def orphan():
    subprocess.run("sleep 3602 &", shell=True, start_new_session=True)

def stubborn():
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 3603"], start_new_session=True)

def child():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(3604,), name="a child").start()

def never_ends():
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

def exit_function():
    atexit.register(never_ends)

def idle():
    # What ends by itself is not named.
    threads = concurrent.futures.ThreadPoolExecutor(1)
    processes = multiprocessing.get_context("spawn").Pool(1)
    threads.submit(abs, 1).result()
    globals()["kept"] = threads, processes

if __name__ == "__main__":
    plain, isolated = (words.split() for words in sys.argv[1:])
    with Farm() as farm:
        for isolate, names in ((False, plain), (True, isolated)):
            for name in names:
                farm.submit(task(isolate=isolate)(globals()[name])).result()
    print("done", flush=True)
"""


def test_all_of_it_at_once(run: Run) -> None:
    plain = "thread executor processes program orphan stubborn child printing logging_"
    code, out, err = run(LEAVES, 2, plain, "", options=["--quiet"])
    assert code == 0, err
    assert "\ndone\n" in out
    named = " ".join(re.findall("taskfarm: rank 1: ended what tasks have left behind: (.*)", err))
    for left in (
        "thread Thread-1",
        "thread endless_0",
        "(sleep 3601)",
        "(sleep 3602)",
        "trap",
        "(a child)",
    ):
        assert left in named, err


def test_exit_functions_that_never_end(run: Run) -> None:
    code, out, err = run(
        LEAVES, 2, "exit_function", "exit_function program child printing", options=["--quiet"]
    )
    assert code == 0, err
    assert "done\n" in out
    child = r"taskfarm: rank 1 \(.*\), child process: .*"
    for left in ("(sleep 3601)", "exit function never_ends"):
        assert re.search(child + re.escape(left), err), err
    assert re.search(r"taskfarm: rank 1: .*: exit function never_ends \(.*job\.py:\d+\)", err), err


def test_what_ends_by_itself_is_not_named(run: Run) -> None:
    code, out, err = run(LEAVES, 2, "idle", "idle", options=["--quiet"])
    assert (code, out) == (0, "done\n"), err
    assert "left behind" not in err


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_thread_of_the_job_waits_for_a_signal(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    job = start(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(3600,)).start()\n"
        "threading.Timer(0.5, lambda: open('started', 'w').close()).start()\n",
        2,
        options=["--grace", "0"],
    )
    job.wait_for(tmp_path / "started")
    job.process.send_signal(number)
    code, _, err = job.end()
    assert code != 0
    assert "Traceback" not in err
    if number == signal.SIGUSR1:
        assert code == 75
        assert "taskfarm: SIGUSR1: the tasks are done, and what the job has left running was ended" in err


PROGRAM = """
import os, signal, subprocess, sys, time
from taskfarm import Farm, task

LONG = "import os, time; open('program', 'w').write(str(os.getpid())); time.sleep(3600)"

@task(isolate=True)
def run():
    subprocess.run([sys.executable, "-c", LONG])

with Farm() as farm:
    future = farm.submit(run)
    while not (os.path.exists("program") and os.path.getsize("program")):
        time.sleep(0.02)
    os.kill(os.getpid(), int(sys.argv[1]))
    future.result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_program_of_an_isolated_task_ends_with_the_run(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    code, out, err = start(PROGRAM, 3, str(int(number)), options=["--grace", "0"]).end()
    assert code != 0, out + err
    assert int((tmp_path / "program").read_text()) in map(
        int, (p.name for p in (tmp_path / "pids").iterdir())
    )
