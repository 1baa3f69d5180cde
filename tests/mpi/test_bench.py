"""`python -m taskfarm bench` measures, says what it means, and refuses what makes no sense."""

import json
from pathlib import Path

import pytest

from .conftest import Job


def bench(python: Path, folder: Path, *words: str) -> tuple[int, str, str]:
    return Job(python, ["-m", "taskfarm", "bench", *words], folder).end()


def test_json_has_every_figure(python: Path, tmp_path: Path) -> None:
    code, out, err = bench(python, tmp_path, "-n", "3", "--json", "--seconds", "0.2")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["ranks"] == 3
    for name in (
        "round_trip_p50_us",
        "round_trip_after_50_ms_idle_p50_us",
        "submit_tasks_per_s",
        "map_tasks_per_s",
        "arrays_8_MB_map_MB_per_s",
        "idle_cpu_s_per_worker_and_s",
    ):
        assert figures[name] > 0, name
    # Beside other work on the machine, no task may be long enough.
    assert figures["metg_us"] is None or figures["metg_us"] > 0


def test_words_say_what_the_table_means(python: Path, tmp_path: Path) -> None:
    code, out, err = bench(python, tmp_path, "-n", "3", "--seconds", "0.2")
    assert code == 0, err
    assert "tasks/s" in out
    assert "On these 3 ranks" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "one rank has no workers"),
        (["--seconds", "soon"], "the seconds must be a number"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["job.py"], "unrecognized arguments: job.py"),
    ],
)
def test_wrong_use_is_one_line(python: Path, tmp_path: Path, words: list[str], line: str) -> None:
    code, out, err = bench(python, tmp_path, *words)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
