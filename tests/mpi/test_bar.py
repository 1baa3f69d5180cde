"""The bar through a real mpiexec, whose ranks have no terminal: it is drawn on the user's own."""

import re
from pathlib import Path

from tests.views.report.terminal import shown

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


def test_bars_of_two_maps_and_what_is_printed(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    words = [str(python), "-m", "taskfarm", "run", "-n", "3", "job.py"]
    code, lines = shown(words, tmp_path, 60)
    assert code == 0, lines
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
    code, lines = shown(["sh", "-c", 'exec "$@" 2> log', "sh", *words], tmp_path, 60)
    assert code == 0, lines
    assert "half a line" in lines
    assert not any("%|" in line for line in lines)
    assert "%|" not in (tmp_path / "log").read_text()
