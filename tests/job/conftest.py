"""Farms that need no MPI."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from taskfarm import Farm, testing


@pytest.fixture(params=["fake", "serial"])
def open_farm(request: pytest.FixtureRequest) -> Callable[[], Farm]:
    """Opens a farm over the fake transport, or in one process."""
    return Farm if request.param == "serial" else partial(testing.farm, workers=3, seed=1)


@pytest.fixture
def farm(open_farm: Callable[[], Farm]) -> Iterator[Farm]:
    """An open farm of each kind."""
    with open_farm() as farm:
        yield farm
