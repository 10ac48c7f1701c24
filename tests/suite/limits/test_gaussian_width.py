import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.curvature.quadrature import Quadrature, SpectralMeasure, atoms
from suite.limits.gaussian_width import gaussian_width_fraction, gaussian_width_limit
from suite.limits.removal import MagnitudeOrder

seeds = st.integers(0, 10_000)
tolerances = st.floats(1e-6, 10.0)


def _limit(model, tolerance, **options):
    return gaussian_width_limit(atoms(model.eigenvalues), model.order, tolerance, **options)


def test_fraction_of_a_diagonal_hessian_in_closed_form():
    eigenvalues = np.array([0.0, 0.5, 2.0, 7.0, 1e-4])
    radius, tolerance = 1.7, 0.03
    expected = np.mean(2 * tolerance / (2 * tolerance + eigenvalues * radius**2))
    assert gaussian_width_fraction(atoms(eigenvalues), radius, tolerance) == pytest.approx(expected, abs=1e-14)


def test_fraction_at_the_ends():
    measure = atoms([0.0, 0.0, 0.0, 1.0, 2.0])
    assert gaussian_width_fraction(measure, 0.0, 0.1) == pytest.approx(1.0, abs=1e-15)
    assert gaussian_width_fraction(measure, 1e200, 1e-200) == pytest.approx(0.6, abs=1e-15)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.3])
def test_limit_of_equal_weights_and_equal_eigenvalues_in_closed_form(tolerance):
    # s = c / (h + c), c = 2 eps / (s D a^2), is s^2 + k s - k = 0 with k = 2 eps / (D a^2 h).
    dim, magnitude, eigenvalue = 100_003, 0.02, 1.3
    k = 2 * tolerance / (dim * magnitude**2 * eigenvalue)
    exact = (-k + math.sqrt(k * k + 4 * k)) / 2
    estimate = gaussian_width_limit(atoms([eigenvalue]), MagnitudeOrder.of(np.full(dim, magnitude)), tolerance)
    assert estimate.num_removed == math.floor(exact * dim)
    assert estimate.sparsity_limit == estimate.num_removed / dim


@given(seeds, tolerances)
@settings(deadline=None, max_examples=40)
def test_limit_is_the_last_count_that_satisfies_the_equation(quadratic_model, seed, tolerance):
    model = quadratic_model(seed)
    dim = model.order.dim
    feasible = [
        count
        for count in range(dim + 1)
        if count / dim
        <= gaussian_width_fraction(atoms(model.eigenvalues), model.order.radius(count), tolerance) + 1e-10
    ]
    assert _limit(model, tolerance).num_removed == feasible[-1] == len(feasible) - 1


@given(seeds, tolerances, st.integers(-20, 20))
@settings(deadline=None, max_examples=40)
def test_units_of_loss_and_of_weights_do_not_matter(quadratic_model, seed, tolerance, exponent):
    model, factor = quadratic_model(seed), 2.0**exponent  # a power of two, so that not even rounding differs
    limit = _limit(model, tolerance).num_removed
    assert _limit(model.scaled(hessian=factor), factor * tolerance).num_removed == limit
    assert _limit(model.scaled(weights=factor, hessian=factor**-2), tolerance).num_removed == limit


@given(seeds, tolerances, st.floats(1.0, 100.0))
@settings(deadline=None, max_examples=40)
def test_limit_never_falls_with_the_tolerance(quadratic_model, seed, tolerance, factor):
    model = quadratic_model(seed)
    assert _limit(model, factor * tolerance).num_removed >= _limit(model, tolerance).num_removed


def test_a_flat_loss_can_lose_everything():
    estimate = gaussian_width_limit(atoms(np.zeros(50)), MagnitudeOrder.of(np.arange(1.0, 51.0)), 1e-9)
    assert (estimate.sparsity_limit, estimate.num_removed) == (1.0, 50)


def test_a_vanishing_tolerance_leaves_the_flat_directions(quadratic_model):
    assert _limit(quadratic_model(5, num_zero=12), 1e-40).num_removed == 12
    assert _limit(quadratic_model(5, num_zero=0), 1e-40).num_removed == 0


def test_zero_weights_are_removed_for_nothing():
    order = MagnitudeOrder.of([0.0, 0.0, 0.0, 1.0])
    assert gaussian_width_limit(atoms(np.ones(4)), order, 1e-30).num_removed == 3


def test_negative_eigenvalues():
    order = MagnitudeOrder.of(np.linspace(0.1, 1.0, 40))
    spectrum = np.concatenate([np.full(20, -2.0), np.full(20, 3.0)])
    absolute, positive = np.abs(spectrum), np.maximum(spectrum, 0.0)
    for curvature, equivalent in (("abs", absolute), ("positive", positive)):
        estimate = gaussian_width_limit(atoms(spectrum), order, 0.05, curvature=curvature)
        assert estimate.num_removed == gaussian_width_limit(atoms(equivalent), order, 0.05).num_removed
        assert estimate.curvature == curvature


def test_standard_error_is_that_of_the_limits_of_single_probes():
    order = MagnitudeOrder.of(np.full(10_000, 0.05))
    rules = tuple(Quadrature(np.array([value]), np.ones(1)) for value in (0.9, 1.0, 1.1))
    alone = [gaussian_width_limit(SpectralMeasure((rule,)), order, 0.1).sparsity_limit for rule in rules]
    estimate = gaussian_width_limit(SpectralMeasure(rules), order, 0.1)
    assert estimate.probe_standard_error == pytest.approx(np.std(alone, ddof=1) / math.sqrt(3), rel=1e-12)
    assert min(alone) < estimate.sparsity_limit < max(alone)
    assert math.isnan(gaussian_width_limit(SpectralMeasure(rules[:1]), order, 0.1).probe_standard_error)
    assert gaussian_width_limit(atoms([1.0]), order, 0.1).probe_standard_error == 0.0


def test_bounds_are_one_sided():
    estimate = gaussian_width_limit(atoms([1.0]), MagnitudeOrder.of(np.full(10_000, 0.05)), 0.1)
    assert estimate.lower == pytest.approx(estimate.sparsity_limit - math.sqrt(8 * math.log(400) / 10_000))
    assert estimate.upper == 1.0


def test_a_tolerance_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"loss_tolerance_nats=0\.0"):
        gaussian_width_limit(atoms([1.0]), MagnitudeOrder.of([1.0]), 0.0)
