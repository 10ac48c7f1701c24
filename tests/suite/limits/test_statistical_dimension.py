import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from suite.curvature.quadrature import Quadrature, SpectralMeasure, atoms
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import (
    DeltaRuns,
    optimal_theta,
    statistical_dimension_fraction,
    statistical_dimension_limit,
)

seeds = st.integers(0, 10_000)
tolerances = st.floats(1e-6, 10.0)


def _limit(model, tolerance, **options):
    options = {"resolution": 0.0} | options
    return statistical_dimension_limit(
        atoms(model.eigenvalues), model.order, tolerance, model.delta_measure(), **options
    )


def _diagonal_runs(eigenvalues, order):
    return DeltaRuns(lambda count: atoms(eigenvalues, (order.removed(count) / order.radius(count)) ** 2))


@pytest.mark.parametrize("radius", [1e-200, 1e200])
def test_extreme_radii_neither_overflow_nor_divide_by_zero(radius):
    spectrum = atoms([0.0, 1.0, 2.0])
    fraction = statistical_dimension_fraction(spectrum, spectrum.pooled(), radius, 1e-3)
    assert fraction == pytest.approx(1.0 if radius < 1 else 1 / 3, abs=1e-10)


def _own_fraction(mu, order, runs, count, tolerance):
    if order.radius(count) == 0.0:
        return 1.0
    return statistical_dimension_fraction(mu, runs(count).pooled(), order.radius(count), tolerance)


@pytest.mark.parametrize("mass_at_zero", [0.0, 0.4, 0.999])
@pytest.mark.parametrize("eigenvalue", [1e-8, 0.3, 1e9])
def test_theta_of_one_eigenvalue_in_closed_form(mass_at_zero, eigenvalue):
    nu = atoms([0.0, eigenvalue], [mass_at_zero, 1 - mass_at_zero]).pooled()
    target = 0.2 * (1 - mass_at_zero) * eigenvalue  # so that the point lies outside
    radius, tolerance = 1.5, target * 1.5**2 / 2
    expected = (1 - mass_at_zero) / target - 1 / eigenvalue
    assert optimal_theta(nu, radius, tolerance) == pytest.approx(expected, rel=1e-10)


@given(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=20), st.floats(1e-8, 1e8), st.floats(1e-12, 1e3))
def test_theta_solves_its_equation_and_is_below_the_published_one(nodes, radius, tolerance):
    nu = atoms(nodes).pooled()
    target = 2 * tolerance / radius**2
    theta = optimal_theta(nu, radius, tolerance)
    integral = np.dot(nu.quadrature_weights, nu.nodes / (1 + theta * nu.nodes))
    if theta == 0.0:
        assert integral <= target
    else:
        assert integral == pytest.approx(target, rel=1e-9)
        assert theta <= (1 + 1e-12) / target


def test_fraction_of_a_diagonal_hessian_in_closed_form():
    spectrum = np.array([0.0, 0.5, 2.0, 7.0, 1e-4])
    theta = 1 / (2 * 0.03 / 1.7**2) - 1 / 4.0
    fraction = statistical_dimension_fraction(atoms(spectrum), atoms([4.0]).pooled(), 1.7, 0.03)
    assert fraction == pytest.approx(np.mean(1 / (1 + theta * spectrum)), abs=1e-10)


def test_a_point_inside_the_sublevel_set_sees_the_whole_space():
    mu, nu = atoms([1.0, 100.0]), atoms([2.0]).pooled()
    assert statistical_dimension_fraction(mu, nu, 0.5, 0.25) == 1.0  # 2 * 0.5^2 / 2 = 0.25
    assert statistical_dimension_fraction(mu, nu, 0.5, 0.2499) < 1.0
    assert statistical_dimension_fraction(mu, atoms([0.0]).pooled(), 1e9, 1e-9) == 1.0
    assert statistical_dimension_fraction(mu, nu, 0.0, 1e-9) == 1.0


def test_fraction_is_continuous_where_the_point_enters_the_sublevel_set():
    mu, nu = atoms([0.1, 3.0]), atoms([0.5, 2.5]).pooled()
    edge = 1.5 / 2
    assert statistical_dimension_fraction(mu, nu, 1.0, edge * (1 - 1e-9)) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.3])
def test_limit_of_equal_weights_and_equal_eigenvalues_in_closed_form(tolerance):
    # delta / D = 2 eps / (R^2 h) with R^2 = s D a^2: s = sqrt(2 eps / (D a^2 h)).
    dim, magnitude, eigenvalue = 100_003, 0.02, 1.3
    exact = math.sqrt(2 * tolerance / (dim * magnitude**2 * eigenvalue))
    order = MagnitudeOrder.of(np.full(dim, magnitude))
    estimate = statistical_dimension_limit(
        atoms([eigenvalue]), order, tolerance, lambda _: atoms([eigenvalue]), resolution=0.0
    )
    assert estimate.num_removed == math.floor(exact * dim)
    assert estimate.converged


@given(seeds, tolerances)
@settings(deadline=None, max_examples=40)
def test_search_agrees_with_trying_every_count(quadratic_model, seed, tolerance):
    model = quadratic_model(seed)
    runs, mu, dim = model.delta_measure(), atoms(model.eigenvalues), model.order.dim
    feasible = [
        count / dim <= _own_fraction(mu, model.order, runs, count, tolerance) + 1e-10 for count in range(dim + 1)
    ]
    count = _limit(model, tolerance).num_removed
    assert feasible[count]
    assert count == dim or not feasible[count + 1]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-1, 10.0])
def test_few_runs_suffice_even_when_nu_moves_fast(seed, tolerance):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(20_000)
    eigenvalues = np.exp(rng.uniform(-12, 2, 20_000)) / (0.1 + np.abs(weights))  # flat where weights are large
    order = MagnitudeOrder.of(weights)
    runs, mu = _diagonal_runs(eigenvalues, order), atoms(eigenvalues)
    exact = brentq(
        lambda s: _own_fraction(mu, order, runs, round(s * 20_000), tolerance) - round(s * 20_000) / 20_000, 0.0, 1.0
    )
    estimate = statistical_dimension_limit(mu, order, tolerance, _diagonal_runs(eigenvalues, order))
    assert estimate.converged
    assert estimate.num_delta_runs <= 5
    assert estimate.sparsity_limit == pytest.approx(exact, abs=2e-4)


@given(seeds, tolerances, st.integers(-20, 20))
@settings(deadline=None, max_examples=30)
def test_units_of_loss_and_of_weights_do_not_matter(quadratic_model, seed, tolerance, exponent):
    model, factor = quadratic_model(seed), 2.0**exponent
    limit = _limit(model, tolerance).num_removed
    assert _limit(model.scaled(hessian=factor), factor * tolerance).num_removed == limit
    assert _limit(model.scaled(weights=factor, hessian=factor**-2), tolerance).num_removed == limit


@given(seeds, tolerances, st.floats(1.5, 100.0))
@settings(deadline=None, max_examples=30)
def test_limit_does_not_fall_with_the_tolerance(quadratic_model, seed, tolerance, factor):
    model = quadratic_model(seed)
    assert _limit(model, factor * tolerance).num_removed >= _limit(model, tolerance).num_removed


@pytest.mark.parametrize("curvature", ["abs", "positive"])
@given(seed=seeds, tolerance=tolerances)
@settings(deadline=None, max_examples=30)
def test_sharp_limit_is_never_below_the_published_one(quadratic_model, curvature, seed, tolerance):
    model = quadratic_model(seed)
    published = gaussian_width_limit(atoms(model.eigenvalues), model.order, tolerance, curvature=curvature)
    assert _limit(model, tolerance, curvature=curvature).num_removed >= published.num_removed


def test_a_flat_loss_can_lose_everything():
    order = MagnitudeOrder.of(np.arange(1.0, 51.0))
    estimate = statistical_dimension_limit(atoms(np.zeros(50)), order, 1e-9, lambda _: atoms([0.0]))
    assert (estimate.sparsity_limit, estimate.num_removed, estimate.upper) == (1.0, 50, 1.0)


def test_a_network_of_zeros_needs_no_run():
    def no_run(count):
        raise AssertionError("nothing to run from")

    estimate = statistical_dimension_limit(atoms([1.0]), MagnitudeOrder.of(np.zeros(9)), 1e-9, no_run)
    assert (estimate.sparsity_limit, estimate.num_delta_runs) == (1.0, 0)


def test_zero_weights_are_removed_for_nothing_and_never_run():
    order = MagnitudeOrder.of([0.0, 0.0, 0.0, 1.0])
    estimate = statistical_dimension_limit(
        atoms(np.ones(4)), order, 1e-30, _diagonal_runs(np.ones(4), order), resolution=0.0
    )
    assert estimate.num_removed == 3


def test_a_vanishing_tolerance_leaves_the_flat_directions(quadratic_model):
    assert _limit(quadratic_model(5, num_zero=12), 1e-40).num_removed == 12
    assert _limit(quadratic_model(5, num_zero=0), 1e-40).num_removed == 0


def test_treatment_applies_to_both_measures():
    order = MagnitudeOrder.of(np.linspace(0.1, 1.0, 40))
    spectrum = np.concatenate([np.full(20, -2.0), np.full(20, 3.0)])
    for curvature, equivalent in (("abs", np.abs(spectrum)), ("positive", np.maximum(spectrum, 0.0))):
        estimate = statistical_dimension_limit(
            atoms(spectrum), order, 0.05, _diagonal_runs(spectrum, order), curvature=curvature, resolution=0.0
        )
        reference = statistical_dimension_limit(
            atoms(equivalent), order, 0.05, _diagonal_runs(equivalent, order), resolution=0.0
        )
        assert estimate.num_removed == reference.num_removed


def test_tolerances_share_runs(quadratic_model):
    model = quadratic_model(3, dim=200)
    mu, shared = atoms(model.eigenvalues), model.delta_measure()
    estimates = [statistical_dimension_limit(mu, model.order, 0.01 * scale, shared) for scale in (0.5, 1.0, 2.0)]
    assert sum(estimate.num_delta_runs for estimate in estimates) == shared.num_runs
    again = statistical_dimension_limit(mu, model.order, 0.02, shared)
    assert again.num_delta_runs <= 1
    assert again.sparsity_limit == pytest.approx(estimates[2].sparsity_limit, abs=1 / 200)


def test_a_search_cut_short_says_so(quadratic_model, caplog):
    estimate = _limit(quadratic_model(1), 0.01, max_runs=1)
    assert not estimate.converged
    assert estimate.num_delta_runs == 1
    assert "no convergence" in caplog.text


def test_standard_error_comes_from_the_probes():
    order = MagnitudeOrder.of(np.full(10_000, 0.05))
    rules = tuple(Quadrature(np.array([value]), np.ones(1)) for value in (0.9, 1.0, 1.1))
    estimate = statistical_dimension_limit(SpectralMeasure(rules), order, 0.1, lambda _: atoms([1.0]))
    assert 1e-4 < estimate.probe_standard_error < 0.05
    exact = statistical_dimension_limit(atoms([1.0]), order, 0.1, lambda _: atoms([1.0]))
    assert exact.probe_standard_error == 0.0
    half_width = math.sqrt(8 * math.log(400) / 10_000)
    assert exact.upper - exact.sparsity_limit == pytest.approx(half_width)
    assert exact.sparsity_limit - exact.lower == pytest.approx(half_width)


def test_calls_that_cannot_work_are_refused():
    order = MagnitudeOrder.of([1.0])
    with pytest.raises(ValueError, match="loss_tolerance_nats"):
        statistical_dimension_limit(atoms([1.0]), order, -1.0, lambda _: atoms([1.0]))
    with pytest.raises(ValueError, match=r"resolution=-1\.0"):
        statistical_dimension_limit(atoms([1.0]), order, 1.0, lambda _: atoms([1.0]), resolution=-1.0)
