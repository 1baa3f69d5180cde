"""The kernel in C computes what the same steps in Python compute, and says in one line why it cannot."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "c_kernel.py"
SMALL = ("--size", "9", "--sweeps", "30", "--temperatures", "6", "--no-picture")

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def fresh(c_kernel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example with nothing compiled yet."""
    monkeypatch.setattr(c_kernel, "loaded", None)
    monkeypatch.setattr(c_kernel, "cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("CC", raising=False)
    return c_kernel


def run(words: list[str], folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in `folder`, which is also the one for temporary files."""
    environ = {**os.environ, "TMPDIR": str(folder), **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environ, capture_output=True, text=True, timeout=240
    )


@needs_compiler
@pytest.mark.parametrize("size", [2, 3, 8])
def test_equal_to_python(fresh: ModuleType, size: int) -> None:
    for temperature in (1.2, 2.27, 3.6):
        for seed in (1, 2**40):
            by_c = fresh.magnetise(temperature, size, 41, seed)
            assert by_c == fresh.magnetise(temperature, size, 41, seed, True)


@needs_compiler
def test_near_the_exact_result(fresh: ModuleType) -> None:
    assert fresh.magnetise(1.8, 64, 400, 1) == pytest.approx(fresh.exact(1.8), abs=0.01)
    assert fresh.magnetise(3.6, 64, 400, 1) < 0.1
    assert fresh.exact(fresh.CRITICAL) == 0.0


@needs_compiler
def test_compiled_once(fresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = fresh.compiled(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [library.name]
    monkeypatch.setattr(subprocess, "run", None)
    assert fresh.compiled(tmp_path) == library


@needs_compiler
def test_failing_compiler(fresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "SOURCE", "no C at all")
    with pytest.raises(RuntimeError, match=r"cc failed on .*error") as failed:
        fresh.compiled(tmp_path)
    assert "\n" not in str(failed.value)
    assert not list(tmp_path.iterdir())


def test_no_compiler(tmp_path: Path) -> None:
    done = run([str(EXAMPLE), *SMALL], tmp_path, CC="no-such-compiler")
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("c_kernel: RuntimeError: no C compiler: there is no 'no-such-compiler' on ")
    assert "Traceback" not in done.stderr


@needs_compiler
def test_under_mpiexec_as_in_python(tmp_path: Path) -> None:
    farmed = run(["-m", "taskfarm", "run", "--quiet", "-n", "3", str(EXAMPLE), *SMALL], tmp_path)
    assert farmed.returncode == 0, farmed.stderr
    plain = run([str(EXAMPLE), *SMALL, "--python"], tmp_path)
    assert plain.returncode == 0, plain.stderr
    sums = [
        next(line for line in done.stdout.splitlines() if line.startswith("checksum"))
        for done in (farmed, plain)
    ]
    assert sums[0] == sums[1]
    assert not math.isnan(float(sums[0].split()[1]))
