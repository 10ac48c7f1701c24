import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from suite.curvature.quadrature import (
    Quadrature,
    SpectralMeasure,
    atoms,
    cumulative,
    gauss_quadrature,
    measure_of_tridiagonals,
    spectral_density,
)


def _moment(power):
    return lambda nodes: nodes**power


def test_gauss_rule_of_the_legendre_recurrence():
    k = np.arange(1, 8)
    rule = gauss_quadrature(np.zeros(8), k / np.sqrt(4.0 * k**2 - 1.0))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    np.testing.assert_allclose(rule.nodes, nodes, atol=1e-14)
    np.testing.assert_allclose(rule.quadrature_weights, weights / 2.0, atol=1e-14)


@given(hnp.arrays(np.float64, 6, elements=st.floats(-5, 5)), hnp.arrays(np.float64, 5, elements=st.floats(0, 5)))
def test_weights_sum_to_one_and_moments_are_those_of_the_tridiagonal(diagonal, off_diagonal):
    rule = gauss_quadrature(diagonal, off_diagonal)
    matrix = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    assert rule.quadrature_weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert (rule.quadrature_weights >= 0).all()
    for power in range(4):
        expected = np.linalg.matrix_power(matrix, power)[0, 0]
        assert np.dot(rule.quadrature_weights, rule.nodes**power) == pytest.approx(expected, abs=1e-9)


def test_one_step_is_one_node():
    rule = gauss_quadrature([3.0], [])
    assert rule.nodes.tolist() == [3.0]
    assert rule.quadrature_weights.tolist() == [1.0]


@pytest.mark.parametrize(("diagonal", "off_diagonal"), [([], []), ([1.0], [1.0]), ([1.0, 2.0], [])])
def test_shapes_that_make_no_tridiagonal_are_refused(diagonal, off_diagonal):
    with pytest.raises(ValueError, match="make no tridiagonal"):
        gauss_quadrature(diagonal, off_diagonal)


def test_entries_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        gauss_quadrature([1.0, math.nan], [1.0])


def test_mean_and_standard_error_over_probes_by_hand():
    measure = SpectralMeasure(tuple(Quadrature(np.array([value]), np.ones(1)) for value in (1.0, 2.0, 6.0)))
    mean, error = measure.integrate(_moment(1))
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(math.sqrt(7.0 / 3.0))  # variance (4 + 1 + 9) / 2 = 7


def test_one_random_probe_has_no_standard_error_and_an_exact_measure_none_to_have():
    one = measure_of_tridiagonals([([1.0, 2.0], [0.5])])
    assert math.isnan(one.integrate(_moment(1))[1])
    assert atoms([1.0, 2.0]).integrate(_moment(1)) == (1.5, 0.0)


def test_atoms_with_masses():
    measure = atoms([0.0, 4.0], [0.75, 0.25])
    assert measure.integrate(_moment(2))[0] == pytest.approx(4.0)
    assert measure.mapped(lambda nodes: nodes + 1.0).integrate(_moment(1))[0] == pytest.approx(2.0)


@pytest.mark.parametrize("masses", [[0.5, 0.6], [1.5, -0.5], [1.0], [math.nan, 1.0]])
def test_masses_that_are_no_probability_are_refused(masses):
    with pytest.raises(ValueError, match="masses of shape"):
        atoms([1.0, 2.0], masses)


def test_empty_measures_are_refused():
    with pytest.raises(ValueError, match="at least 1 quadrature"):
        measure_of_tridiagonals([])
    with pytest.raises(ValueError, match="finite values"):
        atoms([])


def test_pooling_keeps_integrals():
    measure = measure_of_tridiagonals([([1.0, 2.0], [0.5]), ([0.0, 3.0], [0.1])])
    rule = measure.pooled()
    assert (np.diff(rule.nodes) >= 0).all()
    assert np.dot(rule.quadrature_weights, np.exp(rule.nodes)) == pytest.approx(measure.integrate(np.exp)[0])


def test_smoothed_density_holds_all_mass_but_the_atom_at_zero():
    eigenvalues = np.concatenate([np.zeros(700), np.linspace(0.1, 1.0, 290), np.linspace(5.0, 8.0, 10)])
    curve = spectral_density(atoms(eigenvalues))
    assert curve.mass_at_zero == pytest.approx(0.7)
    assert np.trapezoid(curve.values, curve.grid) == pytest.approx(0.3, abs=1e-4)
    assert curve.bandwidth == pytest.approx(8.0 / 200)
    assert np.trapezoid(curve.values[curve.grid > 3], curve.grid[curve.grid > 3]) == pytest.approx(0.01, abs=1e-4)


def test_smoothed_density_of_one_atom_is_a_gaussian():
    curve = spectral_density(atoms([2.0]), grid=[1.5, 2.0, 2.5], bandwidth=0.5)
    peak = 1 / (0.5 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(curve.values, [peak * math.exp(-0.5), peak, peak * math.exp(-0.5)])


def test_smoothed_density_of_a_flat_loss_is_all_atom():
    curve = spectral_density(atoms(np.zeros(5)))
    assert curve.mass_at_zero == pytest.approx(1.0)
    assert curve.bandwidth > 0
    assert not curve.values.any()


def test_bandwidth_must_be_positive():
    with pytest.raises(ValueError, match=r"bandwidth=0\.0 is not positive"):
        spectral_density(atoms([1.0]), bandwidth=0.0)


def test_cumulative_counts_eigenvalues():
    assert cumulative(atoms([0.0, 0.0, 1.0, 3.0]), [-1.0, 0.0, 0.5, 1.0, 2.9, 3.0, 9.0]).tolist() == [
        0.0,
        0.5,
        0.5,
        0.75,
        0.75,
        1.0,
        1.0,
    ]


def test_importing_the_quadrature_loads_no_torch():
    code = "import sys, suite.curvature.quadrature; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
