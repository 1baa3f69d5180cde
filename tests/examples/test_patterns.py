"""The example of a pipeline: its model, and both stages over a farm."""

from types import ModuleType

import numpy as np
import pytest

from taskfarm import testing
from taskfarm.worker import kept_results


def test_the_laplacian_of_a_wave(patterns: ModuleType) -> None:
    x = 2 * np.pi * np.arange(64) / 64
    wave = np.cos(3 * x)[:, None] * np.cos(2 * x)
    # The eigenvalue of the discrete operator.
    expected = (2 * np.cos(3 * x[1]) + 2 * np.cos(2 * x[1]) - 4) * wave
    assert patterns.laplacian(wave) == pytest.approx(expected)


def test_the_wavelength_of_stripes(patterns: ModuleType) -> None:
    stripes = np.cos(2 * np.pi * 8 * np.arange(64) / 64) * np.ones((64, 1))
    assert patterns.wavelength(stripes) == 8.0
    assert patterns.wavelength(np.full((64, 64), 0.3)) == 0.0


def test_both_stages_give_what_a_loop_gives(patterns: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "KEEP_BYTES", 1 << 10)
    feeds, kills = np.array([0.03, 0.05]), np.array([0.058, 0.06, 0.062])
    with testing.farm(workers=2):
        waves, mosaic = patterns.compute(feeds, kills, 64, 30)
    for row, feed in enumerate(feeds):
        for column, kill in enumerate(kills):
            field = patterns.simulate(float(feed), float(kill), 64, 30)
            tile = mosaic[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)]
            assert np.array_equal(tile, patterns.thumbnail(field))
            assert waves[row, column] == patterns.wavelength(field)
