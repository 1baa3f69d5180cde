"""A job runs as Python itself would run it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskfarm.errors import LaunchError
from taskfarm.launch.script import Script


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a script have its way with the interpreter's state."""
    path, argv, main = list(sys.path), sys.argv, sys.modules["__main__"]
    yield
    sys.path[:], sys.argv, sys.modules["__main__"] = path, argv, main


@pytest.mark.usefixtures("as_it_was")
def test_file_runs_as_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.py"
    job.write_text("import sys; print(__name__, __file__, sys.argv, sys.path[0])")
    Script("file", str(job), ["a", "-b"]).run()
    assert capsys.readouterr().out.split(maxsplit=2) == [
        "__main__",
        str(job),
        f"['{job}', 'a', '-b'] {tmp_path}\n",
    ]


@pytest.mark.usefixtures("as_it_was")
def test_code_runs_as_main(capsys: pytest.CaptureFixture[str]) -> None:
    Script("code", "import sys; print(__name__, sys.argv, repr(sys.path[0]))", ["x"]).run()
    assert capsys.readouterr().out == "__main__ ['-c', 'x'] ''\n"


def test_folder_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="there is no file"):
        Script("file", str(tmp_path), []).check()
