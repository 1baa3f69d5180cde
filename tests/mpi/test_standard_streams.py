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
    run = f"timeout 240 {python} -m taskfarm run --progress on -n 3 job.py"
    words = ["bash", "-c", "set -o pipefail; " + line.replace("RUN", run)]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=250)
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


CAT = """
import subprocess
from taskfarm import Farm

def cat():
    return subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, timeout=240).stdout

if __name__ == "__main__":
    with Farm() as farm:
        print(farm.submit(cat).result())
"""


@pytest.mark.parametrize("started", ["RUN", "MPIEXEC -n 3 PYTHON -m taskfarm run job.py"])
def test_the_standard_input_of_a_task_is_empty(python: Path, tmp_path: Path, started: str) -> None:
    (tmp_path / "job.py").write_text(CAT)
    line = started.replace("MPIEXEC", str(python.with_name("mpiexec"))).replace("PYTHON", str(python))
    # Who holds both ends of a pipe never reads its end.
    code, out = shell(python, tmp_path, f"mkfifo never; exec 3<>never; {line} <&3")
    assert (code, out) == (0, "b''\n")


def test_the_last_line_after_a_signal_is_in_the_file(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os, signal, sys, time\nfrom taskfarm import task\n"
        "@task\ndef wait(x):\n    time.sleep(0.01)\n    return x\n"
        "if __name__ == '__main__':\n"
        "    print('begin' * 100, flush=True)\n    sys.stderr.write('error' * 100 + '\\n')\n"
        "    for x in wait.map(range(10_000)):\n"
        "        if x == 20:\n            os.kill(int(os.environ['LAUNCHER']), signal.SIGTERM)\n"
    )
    run = f"LAUNCHER=$$ exec {python} -m taskfarm run --grace 1 -n 3 job.py >all 2>&1"
    subprocess.run(["sh", "-c", run], cwd=tmp_path, timeout=240)
    lines = (tmp_path / "all").read_text().splitlines()
    assert lines[:2] == ["begin" * 100, "error" * 100]
    assert any(line.startswith("taskfarm: SIGTERM: ") for line in lines), lines


def test_a_reader_that_leaves_early_is_no_error(python: Path, tmp_path: Path) -> None:
    line = f"{python} -m taskfarm info | true"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "Error" not in done.stderr


def test_one_rank_without_streams(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import sys\nfrom taskfarm import task\n@task\ndef square(x):\n    return x * x\n"
        "total = sum(square.map(range(5)))\nif sys.argv[1:]:\n    sys.stderr = None\n"
        "with open('result', 'a') as file:\n    print(total, file=file)\n"
    )
    for streams in ("2>/dev/full", "2>&-", "<&- >&- 2>&-", "2>&1 | true", "none"):
        line = f"set -o pipefail; {python} -m taskfarm run --progress on job.py {streams}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=240)
        assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0), streams
    assert (tmp_path / "result").read_text() == "30\n" * 5
