"""The farm under a real mpiexec of each MPI."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = {"mpich": ROOT / ".venv/bin/python", "openmpi": ROOT / ".venv-openmpi/bin/python"}

JOB = """
from taskfarm import task

@task
def square(x):
    return x * x

print(sum(square.map(range(1000))), square.submit(7).result())
"""


@pytest.mark.parametrize("mpi", list(PYTHONS))
@pytest.mark.parametrize("ranks", [1, 2, 4, 16])
def test_map_and_submit(mpi: str, ranks: int, tmp_path: Path) -> None:
    python = PYTHONS[mpi]
    if not python.exists():
        pytest.skip(f"no environment with {mpi}: run scripts/setup")
    job = tmp_path / "job.py"
    job.write_text(JOB)
    done = subprocess.run(
        [python, "-m", "taskfarm", "run", "-n", str(ranks), job],
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["332833500", "49"]
