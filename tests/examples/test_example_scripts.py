"""The parts of the examples around their tasks, and all of each, on one process."""

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def python(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python in `folder`."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("tof_map", ["--size", "1"], "--size must be at least 2"),
        ("tof_map", ["--size", "ten"], "invalid int value: 'ten'"),
        ("tof_map", ["--temperature", "nan"], "--temperature must be from 400 to 1500 K"),
        ("tof_map", ["--temperature", "300"], "--temperature must be from 400 to 1500 K"),
        ("tof_map", ["--output", "nowhere/a.png"], "not a file in an existing folder"),
        ("tof_map", ["--values", "."], "not a file in an existing folder"),
        ("pi_monte_carlo", ["--chunks", "0"], "--chunks must be at least 1"),
        ("pi_monte_carlo", ["--samples", "9", "--chunks", "10"], "--samples must be at least"),
        ("pi_monte_carlo", ["--seed", "-1"], "--seed must not be negative"),
        ("pi_monte_carlo", ["--output", "nowhere/a.png"], "not a file in an existing folder"),
        ("patterns", ["--rows", "0"], "--rows must be at least 1, not 0"),
        ("patterns", ["--size", "100"], "--size must be a multiple of 64, not 100"),
        ("patterns", ["--output", "nowhere/a.png"], "not a file in an existing folder"),
        ("mandelbrot", ["--width", "0"], "--width must be at least 2"),
        ("mandelbrot", ["--max-iterations", "1"], "--max-iterations must be at least 2"),
        ("mandelbrot", ["--output", "nowhere/a.png"], "not a file in an existing folder"),
    ],
)
def test_wrong_arguments(
    name: str,
    arguments: list[str],
    complaint: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        request.getfixturevalue(name).parse_arguments(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "name", ["tof_map", "phase_border", "pi_monte_carlo", "mandelbrot", "c_kernel", "patterns"]
)
def test_workers_do_not_import_matplotlib(name: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}; print(*sys.modules)"
    done = python("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "matplotlib" not in done.stdout.split()


def test_map_on_one_process(tof_map: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = python(
        str(EXAMPLES / "tof_map.py"), "--size", "6", "--values", "map", "--output", "a.png", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rates = np.load(tmp_path / "map")
    axis = tof_map.pressure_axis(6)
    assert rates.shape == (6, 6)
    assert rates[1, 4] == tof_map.tof(float(axis[4]), float(axis[1]), 900.0)[0]
    assert f"checksum     {float(rates.sum())!r}" in done.stdout
    assert "ran on       1 worker and" in done.stdout
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    done = python(str(EXAMPLES / "tof_map.py"), "--size", "6", folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"map", "a.png"}


@pytest.mark.parametrize("temperature", [400.0, 600.0, 900.0, 1500.0])
def test_map_can_be_drawn_at_any_temperature(
    tof_map: ModuleType, tmp_path: Path, temperature: float
) -> None:
    pytest.importorskip("matplotlib")
    axis = tof_map.pressure_axis(8).tolist()
    rows = [[tof_map.tof(p_o2, p_co, temperature) for p_o2 in axis] for p_co in axis]
    tof_map.save_picture(np.array(rows), temperature, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_pi_on_one_process(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("--samples", "100003", "--chunks", "7", "--seed", "5", "--output", "pi.png")
    done = python(str(EXAMPLES / "pi_monte_carlo.py"), *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    last = next(line for line in done.stdout.splitlines() if line.startswith("pi "))
    assert abs(float(last.split()[1]) - math.pi) < 5 * 4 * math.sqrt(0.17 / 100003)
    assert "of 100003 points" in last
    assert (tmp_path / "pi.png").read_bytes().startswith(b"\x89PNG")


def test_pi_chunks_are_reproducible_and_differ(pi_monte_carlo: ModuleType) -> None:
    samples = pi_monte_carlo.BLOCK + 5
    chunks = [pi_monte_carlo.throw(3, chunk, samples) for chunk in range(20)]
    assert chunks == [pi_monte_carlo.throw(3, chunk, samples) for chunk in range(20)]
    assert len({hits for hits, _ in chunks}) > 10
    assert pi_monte_carlo.throw(4, 0, samples) != chunks[0]
    assert {count for _, count in chunks} == {samples}


def test_pi_totals_do_not_depend_on_the_order(pi_monte_carlo: ModuleType) -> None:
    chunks = [pi_monte_carlo.throw(1, chunk, 1000) for chunk in range(10)]
    forth = list(pi_monte_carlo.running_totals(chunks))
    back = list(pi_monte_carlo.running_totals(reversed(chunks)))
    assert len(forth) == 10
    assert forth[-1] == back[-1]
    assert forth[-1][1] == 10_000


@pytest.mark.parametrize(("samples", "chunks"), [(10, 10), (11, 3), (1000, 7)])
def test_pi_chunk_sizes(pi_monte_carlo: ModuleType, samples: int, chunks: int) -> None:
    sizes = pi_monte_carlo.chunk_sizes(samples, chunks)
    assert len(sizes) == chunks
    assert sum(sizes) == samples
    assert max(sizes) - min(sizes) <= 1


def test_pi_estimate_and_its_error(pi_monte_carlo: ModuleType) -> None:
    assert pi_monte_carlo.estimate(3, 4) == (3.0, pytest.approx(4 * math.sqrt(0.75 * 0.25 / 4)))
    # Spread of many small estimates against the error that each of them states.
    results = [pi_monte_carlo.throw(8, chunk, 500) for chunk in range(400)]
    values, errors = np.array([pi_monte_carlo.estimate(*result) for result in results]).T
    assert values.std() == pytest.approx(errors.mean(), rel=0.15)
    assert values.mean() == pytest.approx(math.pi, abs=5 * errors.mean() / 20)


def slow_count(c: complex, max_iterations: int) -> int:
    z = 0j
    for iteration in range(1, max_iterations):
        z = z * z + c
        if z.real**2 + z.imag**2 > 4.0:
            return iteration
    return max_iterations


def test_mandelbrot_against_a_loop_over_points(mandelbrot: ModuleType) -> None:
    for imaginary in (0.0, 0.31, 0.66, 1.2):
        counts, seconds = mandelbrot.row(imaginary, 61, 80)
        points = np.linspace(mandelbrot.LEFT, mandelbrot.RIGHT, 61) + 1j * imaginary
        assert counts.tolist() == [slow_count(complex(c), 80) for c in points]
        assert seconds > 0.0


def test_mandelbrot_known_points(mandelbrot: ModuleType) -> None:
    points = np.array([0.0, -1.0, 1j, -2.0, 0.25, 1.0, 2.0 + 2.0j])
    assert mandelbrot.escape_counts(points, 50).tolist() == [50, 50, 50, 50, 50, 3, 1]


def test_mandelbrot_pixels_are_square(mandelbrot: ModuleType) -> None:
    positions = mandelbrot.row_positions(400, 301)
    assert positions[0] == -positions[-1] == pytest.approx(3.0 * 301 / 400 / 2)
    assert positions[150] == 0.0


def test_mandelbrot_on_one_process(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("--width", "40", "--height", "30", "--max-iterations", "60")
    done = python(str(EXAMPLES / "mandelbrot.py"), *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 x 30 points" in done.stdout
    assert (tmp_path / "mandelbrot.png").read_bytes().startswith(b"\x89PNG")
