"""Wrong use of `shell` is one line and exit code 2, before any command runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.wrong_use import check_refused


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "other").write_text("hello\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("-j 4 echo ::: a", "-j is not supported: use -n N"),
        ("-j4 echo ::: a", "-j is not supported: use -n N"),
        ("--sshlogin host echo ::: a", "--sshlogin is not supported: start the run with mpiexec"),
        ("--pipe wc", "--pipe is not supported"),
        ("--journal x --resume-failed echo ::: a", "--resume-failed needs the log"),
        ("--results out/{}/x echo ::: a", "replacement strings are not supported there"),
        ("--nothing echo ::: a", "unrecognized arguments"),
        ("echo {=_=} ::: a", "Perl"),
        ("--resume echo ::: a", "--resume needs the log"),
        ("--joblog other --resume echo ::: a", "'other' is no log"),
        ("--joblog log --retry-failed", "there is no log 'log'"),
        ("--joblog log --retry-failed echo ::: a", "give no command"),
        ("--joblog none/log echo ::: a", "there is no folder"),
        ("--results other echo ::: a", "'other' is not a folder"),
        ("--timeout x echo ::: a", "must be seconds, a time such as 10m, or 200%"[:15]),
        ("--halt x echo ::: a", "must look like"),
        ("--retries 0 echo ::: a", "must be a whole number of 1 or more"),
        ("--colsep ( echo ::: a", "not a regular expression"),
        ("-a missing echo", "there is no file 'missing'"),
        ("missing.txt", "there is no file 'missing.txt'"),
        ("--memory x echo ::: a", "must be a number of bytes"),
    ],
)
def test_wrong_use_is_one_line(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(["shell", *words.split()], complaint, capsys)


def test_journal_in_a_folder_that_does_not_exist() -> None:
    # In a process of its own: the run has begun when its files are checked.
    words = [sys.executable, "-m", "taskfarm", "shell", "--journal", "none/x", "echo", ":::", "a"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "there is no folder" in done.stderr
