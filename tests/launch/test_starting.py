"""How a run starts: surroundings, scripts, the right mpiexec, wrong use; and its progress."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError
from taskfarm.launch import cli, mpiexec, options
from taskfarm.launch.script import Script

VERSIONS = {
    "MPICH Version:      5.0.2\nMPICH Release date: ...": "mpich",
    "HYDRA build details:\n    Version:  4.3": "mpich",
    "Intel(R) MPI Library 2021.13 for Linux* OS": "mpich",
    "Open MPI v5.0.11, package: Open MPI": "openmpi",
    "mpiexec (OpenRTE) 4.1.4": "openmpi",
    "prterun (PRRTE) 3.0.13": "openmpi",
    "slurm 23.02": None,
}


@pytest.mark.parametrize(("text", "expected"), VERSIONS.items())
def test_family(text: str, expected: str | None) -> None:
    assert mpiexec.family(text) == expected


@pytest.mark.parametrize(
    ("environ", "size", "rank"),
    [
        ({}, None, 0),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, 4, 2),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}, 3, 0),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7"}, 8, 7),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None, 0),
        ({"PMI_SIZE": "many"}, None, 0),
    ],
)
def test_what_the_launcher_claims(environ: dict[str, str], size: int | None, rank: int) -> None:
    assert claimed_size(environ) == size
    assert claimed_rank(environ) == rank


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["run", "-n", "4", "job.py", "-n", "9"], ["run", "job.py", "-n", "9"]),
        (["run", "-np", "4", "-c", "x"], ["run", "-c", "x"]),
        (["run", "-n4", "job.py"], ["run", "job.py"]),
        (["run", "job.py"], ["run", "job.py"]),
    ],
)
def test_ranks_are_taken_out(before: list[str], after: list[str]) -> None:
    assert options.without_ranks(before) == after


def executable(path: Path, prints: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


def test_mpiexec_of_another_mpi_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
    executable(tmp_path / "bin/mpiexec", "HYDRA build details:")
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    with pytest.raises(LaunchError, match="found no mpiexec of Open MPI v5"):
        mpiexec.find_mpiexec("Open MPI v5")
    wanted = executable(tmp_path / "other/mpirun", "mpirun (Open MPI) 5.0.11")
    assert mpiexec.find_mpiexec("Open MPI v5") == str(wanted)
    assert mpiexec.find_mpiexec("MPICH 5") == str(tmp_path / "bin/mpiexec")


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


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run"], "nothing to run"),
        (["run", "--progres", "on", "job.py"], "unrecognized arguments"),
        (["run", "-n", "-3", "job.py"], "the number of ranks must be 1 or more"),
        (["run", "-c"], "-c needs an argument"),
        (["run", "no such file.py"], "there is no file 'no such file.py'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    try:
        code: Any = cli.main(words)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
