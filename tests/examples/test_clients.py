"""Each program of examples/clients prints under mpiexec what it prints without workers."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = Path(__file__).resolve().parents[2] / "examples/clients"

PACKAGES = {
    "with_scipy": ["scipy"],
    "with_emcee": ["emcee", "scipy"],
    "with_dynesty": ["dynesty"],
    "with_joblib": ["joblib", "sklearn"],
    "with_adaptive": ["adaptive"],
    "with_optuna": ["optuna"],
}


def test_all_are_here() -> None:
    assert sorted(path.stem for path in CLIENTS.glob("*.py")) == sorted(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_same_as_serial(name: str, tmp_path: Path) -> None:
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: pip install 'mpi-taskfarm[clients]'")
    environ = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    program = str(CLIENTS / f"{name}.py")
    farm = [sys.executable, "-m", "taskfarm", "run", "-n", "3", "--quiet", program]
    outputs = []
    for words in ([sys.executable, program, "--serial"], farm):
        done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""
