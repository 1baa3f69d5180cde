"""taskfarm's own options with shell commands: journal, views, devices, lost workers."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mpi.conftest import Job

Shell = Callable[..., tuple[int, str, str]]


def test_the_options_of_runs_keep_their_meaning(python: Path, tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str, str]:
        command = (
            "echo {#}$TASKFARM_SLOT$CUDA_VISIBLE_DEVICES >>ran; yes {} | head -c 400000; echo why >&2; "
        )
        command += "exit {}"
        words = ["-m", "taskfarm", "shell", "-n", "3", "-k", "--journal", "run.db", *options, command]
        return Job(python, [*words, ":::", "0", "3", "0"], tmp_path).end()

    files = ["--status", "run.status", "--report", "run.html", "--trace", "run.trace"]
    code, out, err = run(*files, "--gpus-per-node", "2", "--progress", "on")
    printed = "0\n" * 200_000 + "3\n" * 200_000 + "0\n" * 200_000
    assert (code, out) == (1, printed), err
    ran = (tmp_path / "ran").read_text().split()
    # Each worker has a device of its own.
    assert all(re.fullmatch(r"[123](10|21)", line) for line in ran), ran
    # The summary says which command failed, and why.
    assert re.search(r"1 failed: command: CommandFailed: `echo .*` exited with code 3: why\n", err), err
    assert "('/" not in err
    assert "3/3 tasks" in err
    assert json.loads((tmp_path / "run.status").read_text())["failed"] == 1
    assert "exited with code 3: why" in (tmp_path / "run.html").read_text()
    assert (tmp_path / "run.trace").stat().st_size > 0
    # What succeeded comes from the journal, large output and all.
    code, out, err = run("--resume", "--quiet")
    assert (code, out) == (1, printed), err
    assert "2 results came from run.db" in err
    assert len((tmp_path / "ran").read_text().split()) == 4
    # A table of the journal has the commands beside how they have ended.
    words = ["-m", "taskfarm", "journal", "run.db", "--export", "run.csv"]
    code, _, err = Job(python, words, tmp_path).end()
    assert code == 0, err
    with open(tmp_path / "run.csv", newline="") as table:
        rows = {row["argument.number"]: row for row in csv.DictReader(table)}
    assert rows["1"]["argument.text"].startswith("echo 1$TASKFARM_SLOT"), rows
    assert rows["1"]["result.code"] == "0"
    assert "exited with code 3" in rows["2"]["error"]


@pytest.mark.usefixtures("survives")
def test_a_command_whose_worker_dies_runs_again(start_shell: Callable[..., Job], tmp_path: Path) -> None:
    command = "mkdir once 2>/dev/null && kill -9 $PPID; echo {}"
    job = start_shell("--survive", "--joblog", "log", "-k", command, ":::", *map(str, range(6)))
    code, out, err = job.end()
    assert (code, out.split()) == (0, list(map(str, range(6)))), err
    assert len((tmp_path / "log").read_text().splitlines()) == 7
    assert "lost 1 of 2 workers" in err
