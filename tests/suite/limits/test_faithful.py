import time

import numpy as np
import pytest
import torch

from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.quadrature import Quadrature, atoms
from suite.curvature.slq import run_probe, spectral_measure
from suite.limits.estimate import largest_feasible_count
from suite.limits.faithful import GriddedDensity, faithful_limit, flat_rows, gridded_density
from suite.limits.gaussian_width import gaussian_width_fraction, gaussian_width_limit
from suite.limits.removal import MagnitudeOrder

DIM = 4000


def _spectrum(largest, power=2.0):
    return largest * np.arange(1.0, DIM + 1) ** -power


def _probe(spectrum, index=0):
    """One probe of 128 steps; in the basis of the eigenvectors a Rademacher probe is as good as normal."""
    request = ProbeRequest(0, index, "normal", 128)
    return spectral_measure([run_probe(DiagonalOperator(torch.from_numpy(spectrum)), request)])


def _order(seed=1):
    return MagnitudeOrder.of(np.random.default_rng(seed).standard_normal(DIM) ** 3)


def _exact_masses(values, masses=None):
    rule = atoms(values, masses).quadratures[0]
    return GriddedDensity(rule.nodes, rule.quadrature_weights)


def _table_value(density, radius, tolerance):
    return faithful_limit(density, MagnitudeOrder.of([1.0]), tolerance, radius).fractions[radius]


def test_a_wide_spectrum_loses_its_mass_between_the_points_of_the_grid():
    spectrum, radius, tolerance = _spectrum(300.0), 4, 0.05
    exact = gaussian_width_fraction(atoms(spectrum), radius, tolerance)
    for index in range(4):
        measure = _probe(spectrum, index)
        gridded = _table_value(gridded_density(measure.quadratures[0]), radius, tolerance)
        assert abs(gaussian_width_fraction(measure, radius, tolerance) - exact) < 0.01
        assert abs(gridded - exact) > 0.1


def test_a_narrow_spectrum_is_gridded_well():
    spectrum, radius, tolerance = _spectrum(9.0), 4, 0.05
    exact = gaussian_width_fraction(atoms(spectrum), radius, tolerance)
    for index in range(4):
        gridded = _table_value(gridded_density(_probe(spectrum, index).quadratures[0]), radius, tolerance)
        assert abs(gridded - exact) < 0.012


@pytest.mark.parametrize("tolerance", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("largest", [1.0, 9.0])
def test_the_limit_of_a_narrow_spectrum_is_gaussian_width_s_but_for_whole_radii(largest, tolerance):
    measure, order = _probe(_spectrum(largest, power=1.5)), _order()
    limit = faithful_limit(gridded_density(measure.quadratures[0]), order, tolerance, 0.0)
    lowest, highest = (
        largest_feasible_count(
            lambda count, shift=shift: gaussian_width_fraction(
                measure, max(order.radius(count) + shift, 0.0), tolerance
            ),
            DIM,
        )
        / DIM
        for shift in (0.5, -0.5)
    )
    assert lowest - 0.012 - 1e-3 <= limit.sparsity_limit <= highest + 0.012 + 1e-3
    assert abs(limit.sparsity_limit - gaussian_width_limit(measure, order, tolerance).sparsity_limit) < 0.02


def test_with_exact_masses_and_whole_radii_only_the_grid_of_rates_is_left():
    # Ten weights more make the length longer by one, from 0 to 100.
    order = MagnitudeOrder.of(np.repeat(np.sqrt(np.diff(np.arange(101.0) ** 2) / 10), 10))
    spectrum = np.logspace(-4, 1, 500)
    for tolerance in (0.1, 1.0, 30.0):
        limit = faithful_limit(_exact_masses(spectrum), order, tolerance, 0.0)
        smooth = gaussian_width_limit(atoms(spectrum), order, tolerance).sparsity_limit
        step = abs(np.diff(limit.fractions)).max()
        assert abs(limit.sparsity_limit - smooth) <= 1e-3 + step


def test_the_limit_is_the_first_best_rate_of_a_direct_search():
    order, density = _order(3), _exact_masses([0.0, 0.3, 2.0, -5.0])
    limit = faithful_limit(density, order, 0.2, 300.0, num_flat_rows=7)
    misses = []
    for rate in range(1000):
        radius = round(float(np.linalg.norm(np.sort(np.abs(order.weights))[: -(-rate * DIM // 1000)])))
        curved = np.mean([0.4 / (0.4 + abs(value) * radius**2) for value in (0.0, 0.3, 2.0, -5.0)])
        assert limit.fractions[radius] == pytest.approx(0.93 * curved + 0.07, rel=1e-12)
        misses.append(abs(limit.fractions[radius] - rate / 1000))
    assert limit.sparsity_limit == np.argmin(misses) / 1000
    assert limit.radii.tolist() == list(range(301))


def test_radii_are_rounded_to_whole_numbers():
    order = MagnitudeOrder.of(np.full(DIM, 0.4 / np.sqrt(DIM)))  # all lengths round to 0, where everything is feasible
    limit = faithful_limit(_exact_masses([1.0]), order, 1e-6, 0.0)
    assert (limit.radii.tolist(), limit.fractions.tolist()) == ([0.0], [1.0])
    assert limit.sparsity_limit == 0.999
    assert gaussian_width_limit(atoms([1.0]), order, 1e-6).sparsity_limit < 0.02


def test_flat_rows_declare_hundredths_of_the_spectrum_zero_and_raise_the_limit():
    order, density = _order(), _exact_masses(np.full(10, 5.0))
    limits = [faithful_limit(density, order, 0.1, 0.0, num_flat_rows=count) for count in (0, 30, 100)]
    for limit, share in zip(limits, (0.0, 0.3, 1.0), strict=True):
        assert limit.fractions[-1] == pytest.approx(share, abs=1e-3)
    assert limits[0].sparsity_limit < 0.3 < limits[1].sparsity_limit < limits[2].sparsity_limit == 0.999


def test_flat_rows_are_counted_in_the_published_unit():
    assert flat_rows([0.0, 1e-6, 1.27e-5, 1.29e-5, 1.0], 128) == 3
    assert flat_rows([0.0, 1e-6, 1.27e-5, 1.29e-5, 1.0], 1) == 1


def test_density_sums_to_one_on_points_that_have_some():
    density = gridded_density(Quadrature(np.array([-0.5, 0.0, 2.0]), np.array([0.25, 0.25, 0.5])))
    assert density.masses.sum() == pytest.approx(1.0, abs=1e-12)
    assert (density.masses > 0).all()
    assert density.masses[density.eigenvalues < -0.25].sum() == pytest.approx(0.25, abs=0.01)
    assert len(density.masses) < 10_000
    assert (np.abs(density.eigenvalues) < 2.1).all()


def test_a_full_probe_takes_well_under_ten_seconds():
    rule = Quadrature(np.linspace(0.0, 5.0, 128), np.full(128, 1 / 128))
    begin_s = time.process_time()
    faithful_limit(gridded_density(rule), _order(), 0.1, 1000.0)
    assert time.process_time() - begin_s < 5.0


def test_calls_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="loss_tolerance_nats=0"):
        faithful_limit(_exact_masses([1.0]), _order(), 0.0, 1.0)
    with pytest.raises(ValueError, match="num_flat_rows=101"):
        faithful_limit(_exact_masses([1.0]), _order(), 0.1, 1.0, num_flat_rows=101)
