"""What must not change, or only one way, when limits are computed to a tolerance: probes, rules and short runs in all.

The formulas alone have the same tests beside them (test_gaussian_width, test_statistical_dimension).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.lanczos import lanczos
from suite.curvature.operators import DiagonalOperator
from suite.curvature.quadrature import SpectralMeasure
from suite.limits.adaptive import Target
from suite.limits.bracket import rule
from suite.limits.gaussian_width import gaussian_width_fraction
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import statistical_dimension_fraction
from suite.limits.subset_limits import limits_to_tolerance
from tests.suite.limits.weighted import Weighted

DIM, EPSILON = 500, 0.3
PUBLISHED, SHARP = "gaussian_width", "statistical_dimension"


@dataclass(frozen=True, eq=False)
class Model:
    eigenvalues: np.ndarray
    weights: np.ndarray

    def build(self) -> Weighted:
        return Weighted(DiagonalOperator(torch.from_numpy(self.eigenvalues)), self.weights)

    def limits(self, epsilon: float = EPSILON, curvature: Any = "abs") -> dict[tuple[str, float], float]:
        target = Target(0.02, epsilon, curvature, max_dense_dim=0)
        with growing_inline_map() as probe_map:
            found = limits_to_tolerance(lambda _: self, 100, MagnitudeOrder.of(self.weights), target, probe_map)
        return {(each.limit, each.tolerance_factor): each.estimate.sparsity_limit for each in found.predictions}


def _mixed() -> Model:
    """Both signs, a fifth of them zero."""
    rng = np.random.default_rng(5)
    eigenvalues = np.exp(rng.uniform(-8, 1, DIM)) * rng.choice([1.0, 1.0, 1.0, -0.1, 0.0], DIM)
    return Model(eigenvalues, rng.standard_normal(DIM) ** 3)


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])  # powers of two, so that not even rounding differs
def test_the_units_of_loss_and_weights_do_not_matter(factor: float) -> None:
    model = _mixed()
    limits = model.limits()
    assert Model(model.eigenvalues * factor, model.weights).limits(factor * EPSILON) == limits
    assert Model(model.eigenvalues / factor**2, model.weights * factor).limits() == limits


def test_units_that_are_no_power_of_two_move_no_weight_but_by_rounding() -> None:
    model = _mixed()
    scaled = Model(model.eigenvalues * 3.7, model.weights).limits(3.7 * EPSILON)
    for key, limit in model.limits().items():
        assert scaled[key] == pytest.approx(limit, abs=1.01 / DIM)


@pytest.mark.parametrize("curvature", ["abs", "positive"])
def test_limits_grow_with_the_tolerance_and_the_sharp_one_is_never_below(curvature: str) -> None:
    model = _mixed()
    found = [model.limits(epsilon, curvature) for epsilon in (0.003, 0.03, 0.3, 3.0)]
    for limits in found:
        for name in (PUBLISHED, SHARP):
            assert limits[name, 0.5] <= limits[name, 1.0] <= limits[name, 2.0]
        assert all(limits[SHARP, scale] >= limits[PUBLISHED, scale] for scale in (0.5, 1.0, 2.0))
    for name in (PUBLISHED, SHARP):
        values = [limits[name, 1.0] for limits in found]
        assert values == sorted(values)


def test_a_flat_loss_can_lose_everything() -> None:
    flat = Model(np.zeros(DIM), np.random.default_rng(0).standard_normal(DIM))
    assert set(flat.limits(1e-12).values()) == {1.0}


def test_a_vanishing_tolerance_leaves_the_flat_directions() -> None:
    rng = np.random.default_rng(2)
    model = Model(np.repeat([0.0, 0.5, 1.0, 2.0], [100, 150, 150, 100]), rng.standard_normal(DIM))
    for limit in model.limits(1e-9).values():  # far below the eigenvalues, far above the rounding of those at zero
        assert limit == pytest.approx(0.2, abs=1.01 / DIM)


@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 1.0])
def test_equal_eigenvalues_and_equal_weights_in_closed_form(epsilon: float) -> None:
    # published: s^2 + k s - k = 0; sharp: s = sqrt(k); k = 2 epsilon / (D a^2 h)
    magnitude, eigenvalue = 0.3, 1.3
    limits = Model(np.full(DIM, eigenvalue), np.full(DIM, magnitude)).limits(epsilon)
    for scale in (0.5, 1.0, 2.0):
        k = 2 * scale * epsilon / (DIM * magnitude**2 * eigenvalue)
        assert limits[PUBLISHED, scale] == pytest.approx((-k + (k * k + 4 * k) ** 0.5) / 2, abs=1.01 / DIM)
        assert limits[SHARP, scale] == pytest.approx(min(1.0, k**0.5), abs=1.01 / DIM)


@pytest.mark.parametrize("upper", [False, True])
def test_fractions_of_two_eigenvalues_in_closed_form_to_ten_digits(upper: bool) -> None:
    """Two steps find two eigenvalues; from there on rules and formulas are exact."""
    low, high, share, radius = 0.25, 3.0, 0.4, 1.7
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], DIM))
    operator = DiagonalOperator(torch.from_numpy(np.repeat([low, high], [300, 200])))
    run = lanczos(operator.matvec, signs, 5)
    assert run.status == "breakdown"
    mu = SpectralMeasure((rule(run, upper=upper),))
    c = 2 * EPSILON / radius**2
    published = (1 - share) * c / (low + c) + share * c / (high + c)
    assert gaussian_width_fraction(mu, radius, EPSILON) == pytest.approx(published, abs=1e-10)
    # (1 - share) low / (1 + low theta) + share high / (1 + high theta) = c is a quadratic equation for theta
    mean = (1 - share) * low + share * high
    theta = max(np.roots([c * low * high, c * (low + high) - low * high, c - mean]))
    sharp = (1 - share) / (1 + low * theta) + share / (1 + high * theta)
    assert statistical_dimension_fraction(mu, mu.pooled(), radius, EPSILON) == pytest.approx(sharp, abs=1e-10)
