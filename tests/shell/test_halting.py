"""When a run of commands ends early."""

import pytest

from taskfarm.shell.halting import Halt


@pytest.mark.parametrize("text", ["now,fail=1", "soon,success=3", "soon,done=10%", "now,fail=100%"])
def test_words_are_read(text: str) -> None:
    assert str(Halt.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "now", "now,fail", "later,fail=1", "now,fail=0", "soon,fail=101%", "2"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        Halt.parse(text)


@pytest.mark.parametrize(
    ("text", "succeeded", "failed", "total", "reached"),
    [
        ("now,fail=2", 9, 1, 10, False),
        ("now,fail=2", 0, 2, None, True),
        ("soon,success=1", 1, 5, 10, True),
        ("soon,done=3", 1, 2, 10, True),
        ("soon,fail=50%", 0, 1, 4, False),
        ("soon,fail=50%", 0, 2, 4, True),
        ("soon,fail=1%", 0, 1, 6, True),
        ("soon,fail=1%", 0, 1, None, False),
        ("soon,fail=50%", 5, 4, 10, False),
    ],
)
def test_what_is_counted(text: str, succeeded: int, failed: int, total: int | None, reached: bool) -> None:
    halt = Halt.parse(text)
    assert halt is not None
    assert halt.reached(succeeded, failed, total) == reached
