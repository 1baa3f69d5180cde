"""A run never takes the place of a file that is not its own."""

import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskfarm.errors import LaunchError
from taskfarm.launch import output_files
from taskfarm.launch.config import RunConfig
from taskfarm.launch.script import Script
from taskfarm.views.own_files import beside, put

JOB = Script("file", "job.py", [])
NAMES = ("journal", "status", "report", "trace")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text("print('the job')\n")


def refused(**files: str) -> str:
    """The line with which a run with these files is refused; what is in the folder stays as it is."""
    before = contents()
    with pytest.raises(LaunchError) as caught:
        output_files.check(RunConfig(**files), JOB)  # type: ignore[arg-type]
    assert contents() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def accepted(**files: str) -> None:
    output_files.check(RunConfig(**files), JOB)  # type: ignore[arg-type]


OTHERS = {
    "notes.txt": b"my notes\n",
    "data.json": b'{"taskfarm": 2, "data": [1, 2]}',
    "list.json": b"[\n1, 2\n]\n",
    "events.json": b'[\n{"ph":"X","name":"mine"}\n]\n',
    "page.html": b"<!DOCTYPE html>\n<title>Mine</title>\n",
    "data.gz": gzip.compress(b"my data"),
    "broken.gz": b"\x1f\x8bbroken",
    "binary": bytes(range(256)),
    "newline": b"\n",
    "empty": b"",
}


@pytest.mark.parametrize("name", ["status", "report", "trace"])
def test_files_of_other_kinds_are_refused(name: str) -> None:
    for other, content in OTHERS.items():
        Path(other).write_bytes(content)
    Path("linked").symlink_to("notes.txt")
    os.link("notes.txt", "hard")
    for other in (*OTHERS, "linked", "hard"):
        assert f"{other!r} is not a {name} file, and would be overwritten" in refused(**{name: other})


def test_its_own_files_of_an_earlier_run_are_replaced() -> None:
    Path("run.json").write_bytes(b'[\n{"ph":"M","name":"process_name","pid":1,"args":{}},\n')
    Path("run.json.gz").write_bytes(gzip.compress(Path("run.json").read_bytes())[:-12])
    Path("begun.json").write_bytes(b"[\n")
    Path("begun.json.gz").write_bytes(gzip.compress(b"")[:10])
    Path("run.html").write_text('<!DOCTYPE html>\n<html lang="en">\n<title>taskfarm: job</title>\n')
    Path("run.status").write_text(json.dumps({"taskfarm": 1}))
    accepted(trace="run.json", report="run.html", status="run.status")
    for trace in ("run.json.gz", "begun.json", "begun.json.gz"):
        accepted(trace=trace, report="new.html", status="new.status")


def test_one_file_for_two_purposes_is_refused() -> None:
    Path("folder").mkdir()
    Path("link").symlink_to(".")
    Path("to_be").symlink_to("x")
    Path("empty").touch()
    os.link("empty", "hard")
    Path("soft").symlink_to("empty")
    pairs = [("x", "x"), ("x", "./x"), ("x", os.path.abspath("x")), ("x", "folder/../x"), ("link/x", "x")]
    pairs += [("to_be", "x"), ("empty", "hard"), ("empty", "soft")]
    for one, other in pairs:
        for first in NAMES:
            for second in NAMES:
                if first != second:
                    assert "are the same file" in refused(**{first: one, second: other})


def test_the_job_and_companions_of_the_journal_are_refused() -> None:
    Path("alias.py").symlink_to("job.py")
    for name in NAMES:
        for path in ("job.py", "./job.py", "alias.py", os.path.abspath("job.py")):
            assert "and the job are the same file" in refused(**{name: path})
    for suffix in ("-wal", "-shm", "-journal", ".d"):
        for name in ("status", "report", "trace"):
            assert "a file of the journal" in refused(**{"journal": "run.db", name: f"./run.db{suffix}"})
    assert "a file of the status" in refused(status="s", trace="s.ask")


def test_places_where_no_file_can_be_are_refused() -> None:
    Path("dangling").symlink_to("nowhere/x")
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in NAMES:
            assert "there is no folder" in refused(**{name: "nowhere/x"})
            assert "is a folder" in refused(**{name: "."})
            assert "is a link" in refused(**{name: "dangling"})
            assert "needs the name of a file" in refused(**{name: ""})
        for name in ("status", "report"):
            for path in ("fifo", "socket", "/dev/null", "/dev/full"):
                assert "is not a regular file" in refused(**{name: path})
    accepted(trace="/dev/null")
    accepted(trace="fifo")
    Path("taskfarm-output").touch()
    assert "is not a folder" in refused(output="files")


def test_the_command_line_refuses_in_one_line() -> None:
    for words in (["-n", "3"], []):
        command = [sys.executable, "-m", "taskfarm", "run", *words, "--trace", "job.py", "job.py"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert Path("job.py").read_text() == "print('the job')\n"


def is_own(path: str) -> bool:
    return Path(path).read_text().startswith("own")


@pytest.mark.parametrize("others", [None, "own, old", "mine"])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_stays(
    others: str | None, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*args: str) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    Path("alias").symlink_to("target")
    new = beside("alias")
    Path(new).write_text("own, new")
    if others is not None:
        Path("target").write_text(others)
    if others == "mine":
        with pytest.raises(FileExistsError):
            put(new, "alias", is_own)
        assert Path("target").read_text() == "mine"
        assert Path(new).read_text() == "own, new"
    else:
        put(new, "alias", is_own)
        assert Path("target").read_text() == "own, new"
        assert sorted(os.listdir()) == ["alias", "job.py", "target"]


def test_a_file_that_appears_between_the_look_and_the_link_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    link: Callable[..., None] = os.link

    def late(one: str, other: str) -> None:
        Path("x").write_text("mine")
        link(one, other)

    monkeypatch.setattr(os, "link", late)
    Path("new").write_text("own, new")
    with pytest.raises(FileExistsError):
        put("new", "x", is_own)
    assert Path("x").read_text() == "mine"
