"""Values of options that are beyond all floats are refused like others that are out of range."""

import pytest

from taskfarm import Command, task
from taskfarm.schedule.policy import Policy

HUGE = 10**400


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"expect": HUGE}, "expect must be a number of seconds"),
        ({"needs": {"gpu": HUGE}}, r"needs\['gpu'\] must be more than 0"),
        ({"needs": {"gpu": "9" * 400 + "GB"}}, r"needs\['gpu'\] must be more than 0"),
        ({"memory": HUGE}, r"memory must be less than 2\*\*63 bytes"),
        ({"memory": "9" * 400 + "GB"}, r"memory must be less than 2\*\*63 bytes"),
        ({"memory": "20iB"}, "memory must be a number of bytes such as"),
    ],
)
def test_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        task(**options)(abs)  # type: ignore[call-overload]


def test_the_highest_and_the_lowest_priority() -> None:
    assert Policy().changed({"priority": HUGE}).priority == float("inf")
    assert Policy().changed({"priority": -HUGE}).priority == -float("inf")


def test_no_command_has_a_null_character() -> None:
    with pytest.raises(ValueError, match="must not contain a null character"):
        Command("echo a\0b")
