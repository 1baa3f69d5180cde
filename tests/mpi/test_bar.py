"""The bar through a real mpiexec, which gives its ranks no terminal: it is drawn on the user's own."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from pathlib import Path

import pyte

from .conftest import PYTHONS

JOB = """
import logging, time
from taskfarm import task

@task
def slow(x):
    if x == 30:
        print("said by a task")
    time.sleep(0.02)

@task
def other(x):
    time.sleep(0.02)

if __name__ == "__main__":
    one, two = slow.map(range(60)), other.map(range(80))
    for number, _ in enumerate(zip(one, two)):
        if number == 40:
            print("half", end="")
            print(" a line")
            logging.warning("a warning")
    list(two)
"""


def on_terminal(words: list[str], folder: Path) -> list[str]:
    """The lines that a program shows on a terminal of 30 lines of 110 characters."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (30, 110))
    environ = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    process = subprocess.Popen(words, cwd=folder, env=environ, stdin=its, stdout=its, stderr=its)
    shown, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            ready = select.select([ours], [], [], 0.2)[0]
            if ready:
                shown += os.read(ours, 1 << 16)
            elif process.poll() is not None:
                break
        assert process.poll() == 0, shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(its)
        os.close(ours)
    screen = pyte.Screen(110, 30)
    pyte.Stream(screen).feed(shown.decode())
    return [line.rstrip() for line in screen.display if line.strip()]


def test_bars_of_two_maps_and_what_is_printed(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    words = [str(python), "-m", "taskfarm", "run", "-n", "3", "job.py"]
    lines = on_terminal(words, tmp_path)
    for pattern in (
        r"slow: 100%\|.* 60/60 .*busy \d/2, failed 0\]",
        r"other: 100%\|.* 80/80 .*busy \d/2, failed 0\]",
        r"half a line",
        r"WARNING:root:a warning",
        r"\[rank \d task \d+\] said by a task",
    ):
        assert sum(bool(re.fullmatch(pattern, line)) for line in lines) == 1, (pattern, lines)
    assert lines[-1].startswith("limit: ")


def test_no_bar_where_the_launchers_output_goes_to_a_file(python: Path, tmp_path: Path) -> None:
    assert python in PYTHONS.values()
    (tmp_path / "job.py").write_text(JOB)
    words = [str(python), "-m", "taskfarm", "run", "-n", "3", "job.py"]
    lines = on_terminal(["sh", "-c", 'exec "$@" 2> log', "sh", *words], tmp_path)
    assert "half a line" in lines
    assert not any("%|" in line for line in lines)
    assert "%|" not in (tmp_path / "log").read_text()
