import numpy as np
import pytest
import torch

from suite.curvature.operators import DiagonalOperator
from suite.curvature.quadrature import atoms
from suite.limits.exact import exact_limits
from suite.limits.predict import lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder

DIM = 400


@pytest.fixture
def spectrum():
    rng = np.random.default_rng(3)
    return np.sort(rng.exponential(size=DIM) ** 3)


@pytest.fixture
def order():
    return MagnitudeOrder.of(np.random.default_rng(4).standard_normal(DIM))


def axis_measure(spectrum, order):
    """The exact spectral measure of removed weights when the eigenvectors are the axes."""

    def measure(num_removed):
        return atoms(spectrum, (order.removed(num_removed) / order.radius(num_removed)) ** 2)

    return measure


def test_both_limits_at_three_tolerances_equal_the_exact_ones(spectrum, order):
    operator = DiagonalOperator(torch.from_numpy(spectrum))
    predictions = predict(
        atoms(spectrum), order, 0.3, lanczos_delta_measure(operator, order, 120), "abs", resolution=0.0
    )
    assert [(each.limit, each.tolerance_factor) for each in predictions] == [
        (limit, factor) for factor in (0.5, 1.0, 2.0) for limit in ("gaussian_width", "statistical_dimension")
    ]
    for each in predictions:
        exact = exact_limits(
            spectrum,
            axis_measure(spectrum, order),
            order,
            0.3 * each.tolerance_factor,
            statistical_dimension_curvature="abs",
        )
        wanted = getattr(exact, each.limit).sparsity_limit
        assert each.estimate.sparsity_limit == pytest.approx(wanted, abs=2 / DIM)
        assert each.estimate.loss_tolerance_nats == pytest.approx(0.3 * each.tolerance_factor)


def test_runs_from_the_removed_weights_are_shared_between_tolerances(spectrum, order):
    counts = []

    def counted(num_removed):
        counts.append(num_removed)
        return axis_measure(spectrum, order)(num_removed)

    predict(atoms(spectrum), order, 0.3, counted, "positive")
    assert len(counts) == len(set(counts))


def test_limits_grow_with_the_tolerance(spectrum, order):
    predictions = predict(atoms(spectrum), order, 0.3, axis_measure(spectrum, order), "abs")
    for limit in ("gaussian_width", "statistical_dimension"):
        values = [each.estimate.sparsity_limit for each in predictions if each.limit == limit]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_a_tolerance_that_is_not_positive_is_refused(spectrum, order):
    with pytest.raises(ValueError, match="positive"):
        predict(atoms(spectrum), order, 0.0, axis_measure(spectrum, order), "abs")
