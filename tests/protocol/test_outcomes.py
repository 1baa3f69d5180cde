"""Outcomes as the master hands them out."""

from typing import Any

from taskfarm.errors import ResultNotLoadable
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.outcomes import load_outcomes
from taskfarm.protocol.serialize import dumps


class Unloadable:
    """Pickles, but cannot be made again."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_result_that_cannot_be_loaded_fails_alone() -> None:
    completed = load_outcomes(Outcomes(5, 5, 3, [dumps(1), dumps(Unloadable()), dumps([3])], {}, 0.1))
    assert completed.values == [1, None, [3]]
    assert isinstance(completed.failures[1], ResultNotLoadable)
    assert "the result of task 6" in str(completed.failures[1])
