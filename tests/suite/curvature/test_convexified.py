"""The convexified Hessian against dense matrices: G, what Ritz pairs of E add to it, and where that leads."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.curvature.convexified import ConvexifiedOperator, Correction, convexified, correction
from suite.curvature.operators import DiagonalOperator, GaussNewtonOperator, HessianOperator, MatrixOperator


def _gauss_newton(network, dtype=torch.float64):
    return GaussNewtonOperator(network.model, network.names, network.batches, dtype)


def _matrix(operator):
    return operator.matmat(torch.eye(operator.dim, dtype=operator.dtype)).double()


def _weights(dim):
    return torch.randn(dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _positive(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0)) @ vectors.T


def _on_krylov_space(errors: Tensor, start: Tensor, num_steps: int) -> Tensor:
    """Return the positive part of E's compression to span(v, Ev, ...), by Householder's QR."""
    vectors = [start / start.norm()]
    for _ in range(num_steps - 1):
        vectors.append(torch.linalg.qr(torch.stack([*vectors, errors @ vectors[-1]], dim=1))[0][:, -1])
    basis = torch.linalg.qr(torch.stack(vectors, dim=1))[0]
    return basis @ _positive(basis.T @ errors @ basis) @ basis.T


@pytest.mark.parametrize("num_steps", [1, 6])
def test_it_is_gauss_newton_and_the_positive_ritz_pairs_of_the_rest(network, num_steps):
    gauss_newton, hessian = _gauss_newton(network), network.hessian()
    weights, dense = _weights(gauss_newton.dim), _matrix(gauss_newton)
    found = convexified(network.operator(), gauss_newton, weights, num_steps)
    errors = hessian - dense
    expected = dense + _on_krylov_space(errors, errors @ weights, num_steps)
    torch.testing.assert_close(_matrix(found), expected, rtol=1e-8, atol=1e-9 * float(hessian.abs().max()))
    assert found.num_matvecs == 2 * (num_steps + 1) + gauss_newton.dim


def test_it_bends_down_nowhere_and_lies_above_gauss_newton(network):
    gauss_newton = _gauss_newton(network)
    dense, found = _matrix(gauss_newton), convexified(network.operator(), gauss_newton, _weights(gauss_newton.dim))
    rounding = 1e-12 * float(dense.abs().max())
    assert torch.linalg.eigvalsh(network.hessian()).min() < -1e-6
    assert torch.linalg.eigvalsh(_matrix(found)).min() > -rounding
    assert torch.linalg.eigvalsh(_matrix(found) - dense).min() > -rounding
    assert torch.linalg.eigvalsh(_matrix(found) - dense).max() > 1e-6


def test_after_all_steps_the_weights_see_all_that_the_errors_bend_upwards(network):
    gauss_newton = _gauss_newton(network)
    weights, dense = _weights(gauss_newton.dim), _matrix(gauss_newton)
    errors = network.hessian() - dense
    found = convexified(network.operator(), gauss_newton, weights, gauss_newton.dim)
    start = errors @ weights
    expected = (dense + _positive(errors)) @ start
    torch.testing.assert_close(found.matvec(start), expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def test_weights_that_no_logit_depends_on_cost_nothing(small_mlp):
    model, names = copy.deepcopy(small_mlp.model), small_mlp.names
    first = next(layer for layer in model if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.bias[0] = -1e3  # this unit never fires
    hessian, gauss_newton = (
        kind(model, names, small_mlp.batches, torch.float64) for kind in (HessianOperator, GaussNewtonOperator)
    )
    dead = (_matrix(hessian) == 0).all(dim=0)
    assert dead.sum() >= first.in_features
    found = convexified(hessian, gauss_newton, hessian.weights(), 8)
    assert found.matvec(dead.double()).abs().max() == 0.0
    assert found.matvec((~dead).double()).abs().max() > 0.0


def test_of_a_linear_model_it_is_the_hessian(small_mlp):
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(5, 3)
    hessian, gauss_newton = (
        kind(model, ["weight"], small_mlp.batches, torch.float64) for kind in (HessianOperator, GaussNewtonOperator)
    )
    found = convexified(hessian, gauss_newton, hessian.weights())
    torch.testing.assert_close(_matrix(found), _matrix(hessian), rtol=1e-10, atol=1e-13)


def test_in_single_precision_it_is_the_same_to_single_precision(small_mlp):
    operators = (small_mlp.operator(torch.float32), _gauss_newton(small_mlp, torch.float32))
    exact = _matrix(convexified(small_mlp.operator(), _gauss_newton(small_mlp), small_mlp.point(), 8))
    single = convexified(*operators, small_mlp.point(), 8)
    assert single.dtype == torch.float32
    torch.testing.assert_close(_matrix(single), exact, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))


def test_where_nothing_is_added_it_is_gauss_newton():
    operator = DiagonalOperator(torch.arange(1.0, 5.0))
    found = convexified(operator, operator, torch.zeros(4))
    assert found.num_matvecs == operator.num_matvecs == 2
    assert found.matvec(torch.ones(4)).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_no_more_steps_are_taken_than_there_are_weights_and_each_is_told():
    told: list[tuple[int, int]] = []
    hessian = DiagonalOperator(torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    zero = DiagonalOperator(torch.zeros(3, dtype=torch.float64))
    found = correction(hessian, zero, torch.ones(3), progress=lambda *each: told.append(each))
    np.testing.assert_allclose(_matrix(ConvexifiedOperator(zero, found)).numpy(), np.diag([3.0, 0.0, 0.5]), atol=1e-12)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_product_that_is_not_finite_is_refused():
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[2, 2] = torch.nan
    with pytest.raises(ValueError, match=r"not finite\. Has the network diverged"):
        convexified(MatrixOperator(matrix), MatrixOperator(torch.eye(3, dtype=torch.float64)), torch.ones(3))


def test_shapes_are_checked_and_products_counted():
    operator = ConvexifiedOperator(
        DiagonalOperator(torch.ones(3)), Correction(torch.zeros((1, 3)), torch.zeros((1, 1)))
    )
    with pytest.raises(ValueError, match=r"Expected: \(3, k\)"):
        operator.matmat(torch.ones((4, 2)))
    operator.matmat(torch.ones((3, 2)))
    assert operator.num_matvecs == 2 * 2 + 2
