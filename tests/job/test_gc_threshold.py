"""The garbage collector looks more seldom while a farm is open, and the user's settings come back."""

import gc
from collections.abc import Iterator

import pytest

from taskfarm import testing


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_the_users_setting_comes_back() -> None:
    gc.set_threshold(600, 11, 12)
    with testing.farm() as farm:
        assert gc.get_threshold()[0] > 600
        assert gc.isenabled()
        assert farm.submit(abs, -1).result() == 1
    assert gc.get_threshold() == (600, 11, 12)


def test_what_the_user_sets_meanwhile_stays() -> None:
    with testing.farm():
        gc.set_threshold(5, 6, 7)
    assert gc.get_threshold() == (5, 6, 7)


@pytest.mark.parametrize("first", [0, 10_000_000])
def test_a_collector_that_is_off_or_more_seldom_is_left_alone(first: int) -> None:
    gc.set_threshold(first, 11, 12)
    with testing.farm():
        assert gc.get_threshold() == (first, 11, 12)
    assert gc.get_threshold() == (first, 11, 12)


def test_it_comes_back_after_an_exception() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), testing.farm():
        raise RuntimeError
    assert gc.get_threshold() == before
