"""Trace and report of real runs: whole, ended early, and asked for wrongly."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Job

Start = Callable[..., Job]

JOB = """
import sys, time
from taskfarm import task

@task(on_error="return", retries=1)
def work(x):
    time.sleep(0.002)
    return 1 / (x % 50)

if __name__ == "__main__":
    list(work.map(range(200)))
    if "stop" in sys.argv:
        raise KeyboardInterrupt
"""


@pytest.mark.parametrize("argument", ["go", "stop"])
def test_trace_and_report(start: Start, tmp_path: Path, argument: str) -> None:
    options = ["--trace", "run.json.gz", "--report", "run.html", "--summary", "json"]
    job = start(JOB, 3, argument, options=options)
    code, _, err = job.end()
    assert (code == 0) is (argument == "go"), err
    events = json.loads(gzip.decompress((tmp_path / "run.json.gz").read_bytes()))
    runs = [event for event in events if event.get("cat") == "run"]
    assert sum(event["args"]["count"] for event in runs) == 204
    assert sorted({event["args"]["attempt"] for event in runs}) == [1, 2]
    page = (tmp_path / "run.html").read_text()
    assert "ZeroDivisionError" in page
    assert "python -m taskfarm run" in page
    assert len(page) < 5_000_000
    if argument == "go":
        (line,) = [line for line in err.splitlines() if line.startswith("{")]
        (failure,) = json.loads(line)["failures"]
        assert (failure["count"], failure["retried"], failure["function"]) == (4, 4, "work")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--trace", "no/folder/run.json"], "there is no folder"),
        (["--report", "."], "'.' is a folder: name a file for the report"),
        (["--trace", "/proc/run.json"], "the trace '/proc/run.json' cannot be written"),
    ],
)
def test_wrong_use_is_one_line(start: Start, options: list[str], line: str) -> None:
    code, out, err = start(JOB, 3, options=options).end()
    assert (code, out) == (2, "") or "Open MPI" in err or "prterun" in err, (code, out, err)
    assert line in err
    assert "Traceback" not in err
