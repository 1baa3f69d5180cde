"""What tasks print and log reaches rank 0, whole lines with rank and task before them."""

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

JOB = """
import logging, os, sys
from taskfarm import Farm, current, task

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(rank)s/%(task)s %(message)s")

def talk(x):
    print("hello", x)
    print("to", "standard error", file=sys.stderr)
    logging.getLogger("mine").info("told %d", x)
    logging.getLogger("mine").debug("not told")
    print("no end", end="")
    return current().task

with Farm() as farm:
    assert list(farm.map(talk, range(5))) == [0, 1, 2, 3, 4]
    assert farm.submit(task(isolate=True)(talk), 7).result() == 5
    try:
        farm.submit(task(isolate=True)(lambda: (print("last words"), os._exit(3)))).result()
    except Exception as error:
        print(type(error).__name__)
"""


def test_lines_have_rank_and_task(run: Run) -> None:
    code, out, err = run(JOB, 3)
    assert code == 0, err
    lines = out.splitlines()
    for x, number in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (7, 5)]:
        assert len([line for line in lines if line.endswith(f"task {number}] hello {x}")]) == 1, out
        assert len([line for line in lines if line.endswith(f"task {number}] no end")]) == 1, out
        assert f"task {number}] to standard error" in err
        assert f"/{number} told {x}\n" in err
    assert "INFO mine 1/" in err or "INFO mine 2/" in err
    assert "not told" not in err
    assert "task 6] last words" in out
    assert lines[-1] == "TaskCrashed"


LEVELS = """
import logging
from taskfarm import Farm, task

logging.basicConfig(level=logging.INFO, format="%(message)s")
mine = logging.getLogger("mine")

def tell(word):
    mine.info(f"info {word}")
    mine.debug(f"debug {word}")

child = task(isolate=True)(tell)

with Farm() as farm:
    farm.submit(child, "before").result()
    mine.setLevel(logging.DEBUG)
    with Farm() as other:
        other.submit(tell, "other").result()
        farm.submit(child, "then").result()
    mine.setLevel(logging.WARNING)
    with Farm() as other:
        farm.submit(child, "after").result()
"""


def test_child_processes_follow_the_levels_of_the_job(run: Run) -> None:
    code, _, err = run(LEVELS, 2, options=["--quiet"])
    assert code == 0, err
    assert err.splitlines() == ["info before", "info other", "debug other", "info then", "debug then"]


@pytest.mark.parametrize("output", ["plain", "files", "drop"])
def test_other_ways(run: Run, tmp_path: Path, output: str) -> None:
    code, out, err = run(JOB, 3, options=["--output", output])
    assert code == 0, err
    assert "[rank" not in out + err
    # What two ranks write at a time may be mixed within a line.
    assert ("hello" in out) == (output == "plain")
    files = sorted(path.name for path in tmp_path.glob("taskfarm-output/*"))
    assert files == (["rank1.txt", "rank2.txt"] if output == "files" else [])
    if output == "files":
        text = "".join(path.read_text() for path in tmp_path.glob("taskfarm-output/*"))
        assert "hello 3" in text
        assert "hello 7" in text


def test_summary(run: Run) -> None:
    job = "from taskfarm import Farm\nwith Farm() as farm:\n    print(sum(farm.map(abs, range(1000))))\n"
    code, _, err = run(job, 3)
    assert code == 0
    assert "on 2 workers; " in err
    assert "% starting (ranks " in err
    assert "abs  1,000" in err
    assert "workers" not in run(job, 3, options=["--quiet"])[2]
    figures = json.loads(run(job, 3, options=["--summary", "json"])[2].splitlines()[-1])
    assert figures["tasks"] == 1000
    total = figures["workers"] * figures["wall_seconds"]
    assert sum(figures["budget_seconds"].values()) == pytest.approx(total, rel=0.05)


def test_bar_on_a_terminal_leaves_what_is_printed_whole(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        """
import time
from taskfarm import Farm, task

tries = []

@task(retries=1)
def work(x):
    time.sleep(0.01)
    print("a task says", x)
    if x == 7 and not tries.append(1) and len(tries) == 1:
        raise ValueError
    return x

with Farm() as farm:
    for x in farm.map(work, range(60)):
        print("the job says", x)
"""
    )
    environ = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environ |= {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "TERM": "xterm",
        "COLUMNS": "120",
    }
    # Under mpiexec no rank has a terminal; a serial run has.
    words = [str(python), "-m", "taskfarm", "run", "job.py"]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    process = subprocess.Popen(words, cwd=tmp_path, env=environ, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert process.wait(240) == 0
    text = shown.decode()
    # What a terminal would show: a carriage return begins a line anew.
    lines = [line.rstrip("\r").rpartition("\r")[2].strip() for line in text.split("\n")]
    for x in range(60):
        assert f"the job says {x}" in lines, text
        assert f"a task says {x}" in lines, text
    assert "60/60" in text
    assert "retried 1" in text
