"""Limits between two rules, on Hessians with a known spectrum."""

import numpy as np
import pytest
import torch

from suite.curvature.lanczos import lanczos
from suite.curvature.operators import MatrixOperator
from suite.curvature.quadrature import Quadrature, SpectralMeasure
from suite.limits.bracket import LIMITS, Runs, shortened
from suite.limits.exact import exact_limits
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder


def _runs(model, num_lanczos_steps, num_probes=1, seed=0, removed=None):
    matrix = torch.from_numpy((model.eigenvectors * model.eigenvalues) @ model.eigenvectors.T)
    operator, draw = MatrixOperator(matrix), np.random.default_rng(seed)
    signs = [torch.from_numpy(draw.choice([-1.0, 1.0], operator.dim)) for _ in range(num_probes)]
    probes = [lanczos(operator.matvec, sign, num_lanczos_steps) for sign in signs]
    direction = None
    if removed is not None:
        direction = lanczos(operator.matvec, torch.from_numpy(model.order.removed(removed)), num_lanczos_steps)
    return Runs(probes, direction, model.order, "positive")


def _exact(model, loss_tolerance_nats):
    found = exact_limits(
        model.eigenvalues,
        model.delta_measure(),
        model.order,
        loss_tolerance_nats,
        gaussian_width_curvature="positive",
    )
    return {name: getattr(found, name) for name in LIMITS}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_enclose_the_probes_own_limit_and_come_together(quadratic_model, seed, name):
    model = quadratic_model(seed, dim=400, num_zero=40)
    removed = _exact(model, 0.5)["statistical_dimension"].num_removed
    whole = _runs(model, 400, seed=seed, removed=removed).bracket(name, 0.5)
    assert whole.low == whole.high
    assert whole.truncation == 0.0
    widths = []
    for steps in (6, 12, 24, 48):
        bracket = _runs(model, steps, seed=seed, removed=removed).bracket(name, 0.5)
        assert bracket.low <= whole.middle + 1 / 400
        assert bracket.high >= whole.middle - 1 / 400
        assert bracket.truncation >= abs(bracket.middle - whole.middle) - 1 / 400
        widths.append(bracket.high - bracket.low)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_probe_error_of_one_probe_is_the_spread_over_many(quadratic_model, name, seed):
    model = quadratic_model(seed, dim=400, num_zero=40)
    exact = _exact(model, 0.5)[name]
    removed = _exact(model, 0.5)["statistical_dimension"].num_removed
    brackets = [_runs(model, 60, seed=100 + index, removed=removed).bracket(name, 0.5) for index in range(40)]
    spread = np.std([bracket.middle for bracket in brackets], ddof=1)
    predicted = brackets[0].probe_standard_error
    # 40 values tell a standard deviation to 11 %; the prediction counts each f(H)_ii at its mean.
    assert spread == pytest.approx(predicted, rel=0.5)
    assert (
        abs(np.mean([bracket.middle for bracket in brackets]) - exact.sparsity_limit) < 4 * spread / 40**0.5 + 1 / 400
    )


def test_more_probes_have_a_smaller_error(quadratic_model):
    model = quadratic_model(1, dim=400, num_zero=40)
    one, four = (_runs(model, 40, num_probes=number).bracket("gaussian_width", 0.5) for number in (1, 4))
    assert four.probe_standard_error == pytest.approx(one.probe_standard_error / 2, rel=0.2)


def test_weights_that_are_all_zero_can_all_go():
    order = MagnitudeOrder.of(np.zeros(5))
    run = lanczos(MatrixOperator(torch.eye(5, dtype=torch.float64)).matvec, torch.ones(5, dtype=torch.float64), 1)
    for name in LIMITS:
        bracket = Runs([run], None, order, "abs").bracket(name, 0.1)
        assert (bracket.middle, bracket.truncation, bracket.probe_standard_error) == (1.0, 0.0, 0.0)


def test_a_shortened_run_is_the_run_of_fewer_steps(quadratic_model):
    model = quadratic_model(2)
    long, short = _runs(model, 20).probes[0], _runs(model, 10).probes[0]
    cut = shortened(long, 0.5)
    np.testing.assert_array_equal(cut.diagonal, short.diagonal)
    np.testing.assert_array_equal(cut.off_diagonal, short.off_diagonal)
    assert (cut.residual_norm, cut.status) == (short.residual_norm, "complete")
    assert shortened(long, 1.0) is long
    assert shortened(short, 0.01).num_lanczos_steps == 1
    assert isinstance(_runs(model, 3)._direction(True), Quadrature)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-4, 1e-2])
def test_what_a_breakdown_in_single_precision_hides_is_told(epsilon):
    dim = 300
    draw = np.random.default_rng(1)
    eigenvalues = np.concatenate([10.0 ** draw.uniform(-9, -6.5, dim - 3), [0.5, 0.8, 1.0]])
    order = MagnitudeOrder.of(draw.standard_normal(dim))
    operator = MatrixOperator(torch.from_numpy(eigenvalues.astype(np.float32)).diag())
    signs = torch.from_numpy(draw.choice([-1.0, 1.0], dim).astype(np.float32))
    found = Runs([lanczos(operator.matvec, signs, dim)], None, order, "positive")
    assert found.probes[0].status == "breakdown"
    assert found.probes[0].num_lanczos_steps < dim
    bracket = found.bracket("gaussian_width", epsilon)
    mu = SpectralMeasure((Quadrature(eigenvalues, np.full(dim, 1 / dim)),))
    exact = gaussian_width_limit(mu, order, epsilon, curvature="positive").sparsity_limit
    assert abs(bracket.middle - exact) <= bracket.truncation + 1 / dim
