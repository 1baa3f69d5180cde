"""The tutorial's steps work as they are written, in an empty folder, with no more than it installs."""

import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.examples.documents import ROOT, blocks

TUTORIAL = ROOT / "docs/tutorial.md"
BLOCKS = blocks(TUTORIAL)

WAITS = (2, 4, 8, 16, 32)
"""Seconds before Ctrl-C, one after the other: on a busy machine, the first task takes its time."""

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which Python finds nothing of the extras but an MPI."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    names = {re.split(r"[^\w.-]", word)[0] for extra in extras.values() for word in extra}
    hidden = {name.replace("-", "_").lower() for name in names} - {"mpich", "openmpi", "tqdm", "pytest"}
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    monkeypatch.setenv("PYTHONPATH", str(hooks))
    work = tmp_path / "empty"
    work.mkdir()
    return work


def commands(after: str) -> list[list[str]]:
    """The words of the commands in the first block of commands after a heading."""
    text = TUTORIAL.read_text()
    line = text[: text.index(after)].count("\n") + 1
    found = next(b for b in BLOCKS if b.line > line and not b.language and "python -m taskfarm" in b.text)
    return [command.split()[1:] for command in found.text.splitlines()]


def started(words: list[str], folder: Path) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], cwd=folder, stdout=pipe, stderr=pipe, text=True)


def done(words: list[str], folder: Path) -> str:
    process = started(words, folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def interrupted(words: list[str], folder: Path, wait_for: str, seconds: float = 2.0) -> str:
    """What a command prints on standard error if Ctrl-C comes some seconds after it has made a file."""
    process = started(words, folder)
    deadline = time.monotonic() + 240
    while not (folder / wait_for).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(seconds)
    if wait_for.endswith(".status"):
        assert "tasks" in done(["-m", "taskfarm", "top", wait_for, "--once"], folder)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    return err


def test_it_names_no_file_that_an_empty_folder_lacks() -> None:
    text = "\n".join(block.text for block in BLOCKS if not block.language)
    files = set(re.findall(r"[\w/.-]+\.(?:py|db|status|png|npz)\b", text))
    assert files == {"job.py", "run.status", "run.db"}


def test_steps_5_and_6(folder: Path) -> None:
    (job,) = (block for block in BLOCKS if block.language == "python" and not block.runs)
    (folder / "job.py").write_text(job.text)
    (watched,) = commands("## 5.")
    interrupted(watched, folder, "run.status")
    first, journal, again = commands("To try this at home")
    assert first == again
    for seconds in WAITS:
        err = interrupted(first, folder, "run.db", seconds)
        (line,) = (line for line in err.splitlines() if "go on with: " in line)
        if int(re.findall(r": ([\d,]+) of 625 tasks are done", line)[0]):
            break
    assert "tof" in done(journal, folder)
    for seconds in WAITS:
        err = interrupted(again, folder, "run.db", seconds)
        if resumed := re.search(r"taskfarm: [\d,]+ results came from run.db", err):
            break
    assert resumed, err


def test_the_long_job_is_steady_and_what_it_prints_is_so() -> None:
    (job,) = (block for block in BLOCKS if block.language == "python" and not block.runs)
    names: dict[str, object] = {"__name__": "job"}
    exec(compile(job.text, "job.py", "exec"), names)
    tof = names["tof"]
    # Where the rate is highest, according to the run that the tutorial quotes.
    rates = [tof(0.01 * 1.3**24, 0.01 * 1.3**n) for n in (22, 23, 24)]  # type: ignore[operator]
    assert f"625 rates, the highest {max(rates):.4f}" in TUTORIAL.read_text()
