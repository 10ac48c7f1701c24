from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from suite.limits.exact import exact_delta_measure
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import DeltaRuns


@dataclass(frozen=True)
class QuadraticModel:
    """A Hessian with a chosen spectrum and random eigenvectors, and weights whose magnitudes spread widely."""

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    order: MagnitudeOrder

    def delta_measure(self) -> DeltaRuns:
        return exact_delta_measure(self.eigenvalues, self.eigenvectors, self.order)

    def scaled(self, *, hessian: float = 1.0, weights: float = 1.0) -> "QuadraticModel":
        order = MagnitudeOrder.of(self.order.weights * weights)
        return QuadraticModel(self.eigenvalues * hessian, self.eigenvectors, order)


def _build(seed: int, dim: int = 60, num_zero: int = 12, lowest: float = 1e-3) -> QuadraticModel:
    rng = np.random.default_rng(seed)
    spectrum = np.concatenate([np.zeros(num_zero), np.exp(rng.uniform(np.log(lowest), np.log(5.0), dim - num_zero))])
    vectors = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return QuadraticModel(spectrum, vectors, MagnitudeOrder.of(rng.standard_normal(dim) ** 3 + 1e-6))


@pytest.fixture(scope="session")
def quadratic_model() -> Callable[..., QuadraticModel]:
    return _build
