"""What tests of shell commands share."""

import shutil

import pytest


@pytest.fixture(scope="session")
def parallel() -> None:
    """Skip where GNU parallel is missing."""
    if shutil.which("parallel") is None:
        pytest.skip("no GNU parallel: run scripts/setup-system")
