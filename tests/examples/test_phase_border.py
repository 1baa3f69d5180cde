"""The squares of examples/phase_border.py cover the map, and each is where its regime is."""

from types import ModuleType

import pytest

from taskfarm import testing


def test_squares_cover_the_map(phase_border: ModuleType) -> None:
    with testing.farm(3):
        result = phase_border.refine.submit(phase_border.Square(0, 0, 0), 5, 900.0).result()
    found = list(phase_border.leaves(result))
    assert sum(4.0**-square.level for square, _ in found) == 1.0
    assert {leaf.regime for leaf in found} == {-1, 0, 1, 2}
    for (level, column, row), regime in found:
        if regime < 0:
            assert level == 5
            continue
        middle = [phase_border.pressure((at + 0.5) / 2**level) for at in (column, row)]
        assert phase_border.regime(*middle, 900.0) == regime


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--levels", "2"], "--levels must be from 3"), (["--temperature", "1"], "--temperature must be")],
)
def test_wrong_arguments(
    phase_border: ModuleType, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        phase_border.parse_arguments(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
