import numpy as np
import pytest
import torch

from suite.curvature.lanczos import lanczos
from suite.curvature.operators import DiagonalOperator
from suite.curvature.quadrature import gauss_quadrature
from suite.curvature.rules import averaged_quadrature, radau_quadrature


def _run(eigenvalues: np.ndarray, seed: int, num_lanczos_steps: int):
    """Return a run's three coefficients, and the exact masses of its start vector."""
    start = torch.randn(len(eigenvalues), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    run = lanczos(DiagonalOperator(torch.from_numpy(eigenvalues)).matvec, start, num_lanczos_steps)
    masses = (start**2 / (start @ start)).numpy()
    return (run.diagonal, run.off_diagonal, run.residual_norm), masses


def _moment(rule, power: int) -> float:
    return float(rule.quadrature_weights @ rule.nodes**power)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("node", [0.0, -1.0, 3.5])
def test_radau_has_its_node_and_all_moments_up_to_2k(seed, node):
    eigenvalues = np.random.default_rng(seed).uniform(0.1, 3.0, 50)
    coefficients, masses = _run(eigenvalues, seed, 5)
    rule = radau_quadrature(*coefficients, node)
    assert len(rule.nodes) == 6
    assert np.abs(rule.nodes - node).min() < 1e-10
    assert rule.quadrature_weights.min() >= 0.0
    for power in range(11):
        assert _moment(rule, power) == pytest.approx(masses @ eigenvalues**power, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_averaged_rule_has_all_moments_up_to_2k(seed):
    eigenvalues = np.random.default_rng(seed).uniform(0.1, 3.0, 50)
    coefficients, masses = _run(eigenvalues, seed, 5)
    rule = averaged_quadrature(*coefficients)
    assert len(rule.nodes) == 9
    assert rule.quadrature_weights.min() >= 0.0
    for power in range(11):
        assert _moment(rule, power) == pytest.approx(masses @ eigenvalues**power, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 10.0])
def test_gauss_and_radau_enclose_what_the_limits_integrate(seed, scale):
    eigenvalues = np.exp(np.random.default_rng(seed).uniform(np.log(1e-5), np.log(10.0), 300))
    lower_before, upper_before = 0.0, 1.0
    for steps in (3, 6, 12, 24):
        coefficients, masses = _run(eigenvalues, seed, steps)
        exact = float(masses @ (scale / (eigenvalues + scale)))
        lower, upper = (
            float(rule.quadrature_weights @ (scale / (np.maximum(rule.nodes, 0.0) + scale)))
            for rule in (gauss_quadrature(*coefficients[:2]), radau_quadrature(*coefficients))
        )
        assert lower_before - 1e-12 <= lower <= exact + 1e-10
        assert exact - 1e-10 <= upper <= upper_before + 1e-12
        lower_before, upper_before = lower, upper


def test_after_a_breakdown_all_rules_are_the_exact_one():
    eigenvalues = np.repeat([0.5, 1.0, 2.0], 10)
    (diagonal, off_diagonal, _), _ = _run(eigenvalues, 1, 20)
    exact = gauss_quadrature(diagonal, off_diagonal)
    for rule in (averaged_quadrature(diagonal, off_diagonal, 0.0), radau_quadrature(diagonal, off_diagonal, 0.0)):
        np.testing.assert_array_equal(rule.nodes, exact.nodes)


@pytest.mark.parametrize("diagonal", [[0.0], [1.0, 1.0]])
def test_a_node_that_is_a_ritz_value_already(diagonal):
    off_diagonal = [1.0] * (len(diagonal) - 1)  # the second matrix is singular
    rule = radau_quadrature(np.array(diagonal), np.array(off_diagonal), 0.5)
    assert np.isfinite(rule.nodes).all()
    assert rule.quadrature_weights.sum() == pytest.approx(1.0)
