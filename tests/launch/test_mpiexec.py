"""The right mpiexec is found."""

import sys
from pathlib import Path

import pytest

from taskfarm.errors import LaunchError
from taskfarm.launch import mpiexec

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
