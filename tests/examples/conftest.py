"""The examples are scripts, not modules of a package: load them by path."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Run examples/`name`.py as a module, without its main()."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tof_map() -> ModuleType:
    return load("tof_map")


@pytest.fixture(scope="session")
def pi_monte_carlo() -> ModuleType:
    return load("pi_monte_carlo")


@pytest.fixture(scope="session")
def mandelbrot() -> ModuleType:
    return load("mandelbrot")


@pytest.fixture(scope="session")
def patterns() -> ModuleType:
    return load("patterns")


@pytest.fixture(scope="session")
def c_kernel() -> ModuleType:
    return load("c_kernel")


@pytest.fixture(scope="session")
def phase_border(tof_map: ModuleType) -> ModuleType:
    # It stands beside the model that it imports.
    sys.modules.setdefault("tof_map", tof_map)
    return load("phase_border")
