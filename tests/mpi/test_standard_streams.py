"""Streams of a run that are read, full, closed, or without a reader."""

import os
import subprocess
from pathlib import Path

import pytest

PRINTS = """
import sys
from taskfarm import task

@task
def square(x):
    print("out", x)
    print("err", x, file=sys.stderr)
    print("\\udc80 \\u20ac")
    return x * x

if __name__ == "__main__":
    with open("result", "w") as file:
        print(sum(square.map(range(20))), file=file)
"""

READS = """
import sys
from taskfarm import task

@task
def square(x):
    return x * x

if __name__ == "__main__":
    text = sys.stdin.read()
    print(len(text), text[:3], sum(square.map(range(5))))
"""


def shell(python: Path, folder: Path, line: str) -> tuple[int, str]:
    """Exit code and output of a line of bash in which RUN stands for the run of the job."""
    run = f"timeout 60 {python} -m taskfarm run --progress on -n 3 job.py"
    words = ["bash", "-c", "set -o pipefail; " + line.replace("RUN", run)]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "RUN >/dev/full 2>&1",
        "RUN <&- >&- 2>&-",
        "(RUN; echo $? > code) 2>/dev/null | head -1 >/dev/null; exit $(cat code)",
    ],
)
def test_output_that_nobody_takes_changes_nothing(python: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "job.py").write_text(PRINTS)
    code, _ = shell(python, tmp_path, line)
    assert (code, (tmp_path / "result").read_text()) == (0, "2470\n")


def test_the_job_reads_its_standard_input(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(READS)
    (tmp_path / "large").write_text("abc\n" * 1_000_000)
    for line, told in (
        ("RUN <large", "4000000 abc 30\n"),
        ("{ read first; RUN; } <large", "3999996 abc 30\n"),
        ("(sleep 1; cat large; sleep 1; echo) | RUN", "4000001 abc 30\n"),
        ("RUN </dev/null", "0  30\n"),
        ("RUN <&-", "0  30\n"),
    ):
        assert shell(python, tmp_path, line) == (0, told), line
