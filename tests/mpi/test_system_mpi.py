"""Debian's own MPICH and Open MPI 4 with the one mpi4py wheel of .venv; no MPI wheel is beside it."""

import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import PYTHONS, ROOT

LIBRARIES = {"mpich": "libmpich.so.12", "openmpi": "libmpi.so.40"}
VERSIONS = {"mpich": "MPICH Version:", "openmpi": "Open MPI v4"}

Run = Callable[..., "tuple[int, str]"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the packages of .venv, whose libraries mpi4py does not look at."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (packages,) = PYTHONS["mpich"].parents[1].glob("lib/python*/site-packages")
    (mine,) = folder.glob("lib/python*/site-packages")
    (mine / "others.pth").write_text(f"{packages}\n{ROOT}\n")
    return folder / "bin/python"


@pytest.fixture(params=list(LIBRARIES))
def mpi(request: pytest.FixtureRequest) -> str:
    """An MPI that Debian has installed."""
    name = request.param
    launcher = Path(f"/usr/bin/mpiexec.{name}")
    if not (launcher.exists() and list(Path("/usr/lib").glob(f"*/{LIBRARIES[name]}"))):
        pytest.skip(f"Debian's {name} is not installed")
    return name


@pytest.fixture
def run(bare: Path, mpi: str, tmp_path: Path) -> Run:
    """Run ``python -m taskfarm ARGS``: exit code and all that was printed."""
    environ = dict(os.environ)
    if mpi == "mpich":
        # Debian's library has a name of its own; mpi4py looks for the one that all MPICHs agreed on.
        (library,) = Path("/usr/lib").glob("*/libmpich.so.12")
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib/libmpi.so.12").symlink_to(library)
        environ |= {"LD_LIBRARY_PATH": str(tmp_path / "lib"), "MPI4PY_MPIABI": "mpich"}

    def run(*words: str) -> tuple[int, str]:
        out = tmp_path / "out"
        with out.open("w") as file:
            done = subprocess.run(
                ["timeout", "-k", "5", "240", str(bare), "-m", "taskfarm", *words],
                cwd=tmp_path,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=250,
            )
        return done.returncode, out.read_text()

    return run


def test_info(run: Run, mpi: str) -> None:
    code, text = run("info")
    assert code == 0, text
    assert VERSIONS[mpi] in text
    assert "mpiexec   /usr/bin/mpi" in text


def test_tof_map(run: Run, tmp_path: Path) -> None:
    words = ["--size", "12", "--values"]
    script = str(ROOT / "examples/tof_map.py")
    code, text = run("run", "-n", "4", script, *words, "farm.npy")
    assert code == 0, text
    assert "3 workers" in text
    command = [str(PYTHONS["mpich"]), script, *words, "alone.npy"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=240, stdout=subprocess.DEVNULL)
    assert np.array_equal(np.load(tmp_path / "farm.npy"), np.load(tmp_path / "alone.npy"))


def test_exit_code_and_resume(run: Run, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        """
import os, sys
from taskfarm import Farm
with Farm() as farm:
    total = sum(farm.map(abs, range(100)))
    print("total", total, flush=True)
    if not os.path.exists("again"):
        open("again", "w").close()
        sys.exit(3)
"""
    )
    words = ["run", "-n", "3", "--journal", "run.db", "--resume", "job.py"]
    code, text = run(*words)
    assert (code, "total 4950" in text) == (3, True), text
    code, text = run(*words)
    assert (code, "total 4950" in text) == (0, True), text
    assert "100 results came from run.db" in text


def test_survive_is_refused(run: Run) -> None:
    code, text = run("run", "-n", "3", "--survive", "-c", "pass")
    assert code == 2
    assert "--survive needs Open MPI 5" in text
