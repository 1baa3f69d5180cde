"""The microkinetic model of examples/tof_map.py, against formulae and another solver."""

import itertools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

TEMPERATURES = (400.0, 600.0, 800.0, 900.0, 1200.0, 1500.0)
PRESSURES = (1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)


def order(model: ModuleType, species: str, p_o2: float, p_co: float, temperature: float) -> float:
    """Reaction order in O2 or CO: the slope of log TOF over log pressure."""
    factor = 1.01
    o2, co = (factor, 1.0) if species == "O2" else (1.0, factor)
    high = model.tof(p_o2 * o2, p_co * co, temperature)[0]
    low = model.tof(p_o2 / o2, p_co / co, temperature)[0]
    return math.log(high / low) / math.log(factor * factor)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_steady_state_is_steady_and_physical(tof_map: ModuleType, temperature: float) -> None:
    for p_o2, p_co in itertools.product(PRESSURES, repeat=2):
        k = tof_map.rate_constants(p_o2, p_co, temperature)
        co, o, free = tof_map.steady_state(k)
        assert min(co, o, free) >= 0.0
        assert max(co, o, free) <= 1.0 + 1e-15
        assert co + o + free == pytest.approx(1.0, abs=1e-14)
        reaction = k.reaction * co * o
        desorption = k.co_desorption * co
        assert k.co_adsorption * free == pytest.approx(desorption + reaction, rel=1e-11)
        gain = 2.0 * k.o2_adsorption * free**2
        assert gain == pytest.approx(2.0 * k.o2_desorption * o**2 + reaction, rel=1e-11)


def test_impingement_is_a_quarter_of_density_times_mean_speed(tof_map: ModuleType) -> None:
    pressure, mass, temperature = 0.2, tof_map.MASS_CO, 700.0
    density = pressure * 1e5 / (tof_map.BOLTZMANN * temperature)
    mean_speed = math.sqrt(8.0 * tof_map.BOLTZMANN * temperature / (math.pi * mass))
    expected = density * mean_speed / 4.0 * tof_map.SITE_AREA
    assert tof_map.impingement(pressure, mass, temperature) == pytest.approx(expected)


def test_site_density_is_that_of_close_packed_platinum(tof_map: ModuleType) -> None:
    neighbours = 3.924e-10 / math.sqrt(2.0)  # m, from the lattice constant
    expected = math.sqrt(3.0) / 2.0 * neighbours**2
    assert tof_map.SITE_AREA == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("pressure", PRESSURES)
def test_one_gas_alone_follows_its_langmuir_isotherm(
    tof_map: ModuleType, pressure: float, temperature: float
) -> None:
    k = tof_map.rate_constants(0.0, pressure, temperature)
    ratio = k.co_adsorption / k.co_desorption
    co, o, free = tof_map.steady_state(k)
    assert (co, o, free) == pytest.approx((ratio / (1 + ratio), 0.0, 1 / (1 + ratio)), rel=1e-10)

    k = tof_map.rate_constants(pressure, 0.0, temperature)
    ratio = math.sqrt(k.o2_adsorption / k.o2_desorption)
    co, o, free = tof_map.steady_state(k)
    assert (co, o, free) == pytest.approx((0.0, ratio / (1 + ratio), 1 / (1 + ratio)), rel=1e-10)


def test_no_gas_no_turnover(tof_map: ModuleType) -> None:
    assert tof_map.tof(0.0, 0.0, 900.0) == (0.0, 0.0, 0.0)


def test_nearly_empty_surface(tof_map: ModuleType) -> None:
    # Both adsorbates in equilibrium with their gas, and hardly any.
    p_o2, p_co, temperature = 1e-7, 1e-10, 1500.0
    k = tof_map.rate_constants(p_o2, p_co, temperature)
    co = k.co_adsorption / k.co_desorption
    o = math.sqrt(k.o2_adsorption / k.o2_desorption)
    assert tof_map.tof(p_o2, p_co, temperature)[0] == pytest.approx(k.reaction * co * o, rel=0.01)
    assert order(tof_map, "CO", p_o2, p_co, temperature) == pytest.approx(1.0, abs=0.01)
    assert order(tof_map, "O2", p_o2, p_co, temperature) == pytest.approx(0.5, abs=0.01)


def test_bare_surface_turns_over_all_oxygen_that_sticks(tof_map: ModuleType) -> None:
    p_o2, p_co, temperature = 1e-5, 1e-4, 900.0
    k = tof_map.rate_constants(p_o2, p_co, temperature)
    free = 1.0 / (1.0 + k.co_adsorption / k.co_desorption)
    expected = 2.0 * k.o2_adsorption * free**2
    assert tof_map.tof(p_o2, p_co, temperature)[0] == pytest.approx(expected, rel=0.01)
    assert order(tof_map, "O2", p_o2, p_co, temperature) == pytest.approx(1.0, abs=0.02)
    assert order(tof_map, "CO", p_o2, p_co, temperature) == pytest.approx(0.0, abs=0.05)


def test_carbon_monoxide_poisons(tof_map: ModuleType) -> None:
    # O2 needs two bare sites, hence the order of -2; with one it would be -1.
    p_o2, p_co, temperature = 1e-4, 0.5, 900.0
    k = tof_map.rate_constants(p_o2, p_co, temperature)
    free = 1.0 / (1.0 + k.co_adsorption / k.co_desorption)
    turnover, co, o = tof_map.tof(p_o2, p_co, temperature)
    assert co > 0.98
    assert o < 1e-6
    assert turnover == pytest.approx(2.0 * k.o2_adsorption * free**2, rel=0.01)
    assert order(tof_map, "CO", p_o2, p_co, temperature) == pytest.approx(-2.0, abs=0.05)
    assert order(tof_map, "O2", p_o2, p_co, temperature) == pytest.approx(1.0, abs=0.01)


def test_oxygen_crowds_out_carbon_monoxide(tof_map: ModuleType) -> None:
    # CO that finds a site reacts unless it desorbs first; O2 adsorption, the reverse of two
    # reactions, sets how many sites there are: 2 k_O2 free^2 = share * k_CO free.
    p_o2, p_co, temperature = 0.5, 2e-5, 600.0
    k = tof_map.rate_constants(p_o2, p_co, temperature)
    turnover, _, o = tof_map.tof(p_o2, p_co, temperature)
    share = k.reaction / (k.reaction + k.co_desorption)
    assert o > 0.98
    assert turnover == pytest.approx((share * k.co_adsorption) ** 2 / (2.0 * k.o2_adsorption), rel=0.01)
    assert order(tof_map, "CO", p_o2, p_co, temperature) == pytest.approx(2.0, abs=0.01)
    assert order(tof_map, "O2", p_o2, p_co, temperature) == pytest.approx(-1.0, abs=0.01)


@pytest.mark.parametrize(
    ("p_o2", "p_co", "temperature"),
    [
        (1e-5, 0.5, 900.0),
        (0.5, 1e-5, 900.0),
        (1e-5, 1e-5, 900.0),
        (0.5, 0.5, 900.0),
        (0.3, 0.015, 900.0),
        (1e-3, 1e-3, 1300.0),
        # Two stable states each; the clean surface leads to one with O*, or to one with CO*.
        (0.5, 5e-4, 600.0),
        (0.5, 1e-3, 600.0),
        # The path passes close to a steady state that no longer exists: it lingers there.
        (0.1713, 3.61e-4, 600.0),
    ],
)
def test_same_state_as_an_integrator_reaches(
    tof_map: ModuleType, p_o2: float, p_co: float, temperature: float
) -> None:
    integrate = pytest.importorskip("scipy.integrate")
    k = tof_map.rate_constants(p_o2, p_co, temperature)

    def slope(_: float, coverages: Sequence[float]) -> list[float]:
        co, o = coverages
        free = 1.0 - co - o
        reaction = k.reaction * co * o
        return [
            k.co_adsorption * free - k.co_desorption * co - reaction,
            2.0 * (k.o2_adsorption * free**2 - k.o2_desorption * o**2) - reaction,
        ]

    run: Any = integrate.solve_ivp(slope, (0.0, 1e8), [0.0, 0.0], method="Radau", rtol=1e-9, atol=1e-14)
    assert run.success
    co, o, _ = tof_map.steady_state(k)
    assert (co, o) == pytest.approx(tuple(run.y[:, -1]), rel=1e-5, abs=1e-9)


def test_no_convergence_is_an_error(tof_map: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tof_map, "MOST_STEPS", 3)
    with pytest.raises(RuntimeError, match="no steady state after 3 steps for RateConstants"):
        tof_map.tof(1e-3, 1e-3, 900.0)


def test_the_map_has_all_pairs_of_pressures_and_the_time_of_each(tof_map: ModuleType) -> None:
    points = tof_map.compute_map(5, 900.0)
    axis = tof_map.pressure_axis(5).tolist()
    expected = [[list(tof_map.tof(p_o2, p_co, 900.0)) for p_o2 in axis] for p_co in axis]
    assert points[..., :3].tolist() == expected
    assert (points[..., 3] > 0.0).all()
    assert tof_map.cores_of_worker(0)


def test_the_regimes_are_drawn_in_characters(tof_map: ModuleType) -> None:
    values = tof_map.compute_map(12, 900.0)[..., :3]
    lines = tof_map.regimes(values, 900.0).splitlines()
    assert [line[:12].strip() for line in (lines[1], lines[12])] == ["0.5 bar CO", "1e-05 bar CO"]
    drawn = [line[14:] for line in lines[1:13]]
    assert {len(line) for line in drawn} == {60}
    assert (drawn[0][0], drawn[-1][-1]) == ("C", "O")
