import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from suite.curvature.convexified import ConvexifiedOperator, convexified
from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.operators import GaussNewtonOperator, HessianOperator
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


@dataclass(frozen=True)
class DigitsNetwork:
    """A network trained on the digits, and its training data; an OperatorSource."""

    model: nn.Module
    batches: list[tuple[torch.Tensor, torch.Tensor]]

    def build(self, dtype: torch.dtype = torch.float32) -> HessianOperator:
        return HessianOperator(self.model, ("0.weight", "2.weight", "4.weight"), self.batches, dtype)

    def convexified(self) -> ConvexifiedOperator:
        hessian = self.build()
        gauss_newton = GaussNewtonOperator(self.model, ("0.weight", "2.weight", "4.weight"), self.batches)
        return convexified(hessian, gauss_newton, hessian.weights())


def _digits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    train = torch.randperm(1797, generator=generator)[:1437]
    return torch.tensor(digits.data / 16.0, dtype=torch.float32)[train], torch.tensor(digits.target)[train]


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _trained(penalty: float, seed: int) -> DigitsNetwork:
    """Train 64-64-32-10 on the digits: SGD 0.05, momentum 0.9, cosine over 300 epochs, batch 64, L1 on the weights.

    In float64: what processors round differently grows 10^6-fold in 6,900 steps, in float32 to another network.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = _digits(generator)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for layer in model[::2]:
        bound = 1.0 / math.sqrt(layer.in_features)
        layer.weight.data.uniform_(-bound, bound, generator=generator)
        layer.bias.data.uniform_(-bound, bound, generator=generator)
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        for batch in torch.randperm(len(inputs), generator=generator).split(64):
            penalty_sum = sum(layer.weight.abs().sum() for layer in model[::2])
            loss = functional.cross_entropy(model(inputs[batch].double()), targets[batch]) + penalty * penalty_sum
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.float()
    assert int((model(inputs).argmax(1) != targets).sum()) <= 1
    return DigitsNetwork(model, [(inputs, targets)])


@pytest.fixture(scope="session")
def trained_on_digits() -> Callable[..., DigitsNetwork]:
    return _trained


@dataclass(frozen=True)
class Oracle:
    """A trained network with its exact spectrum and limits' ingredients."""

    source: DigitsNetwork
    order: MagnitudeOrder
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    delta_measure: object


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Train with lambda = 1e-3 and diagonalise; on one core 4 s, 25 s for the Hessian, 18 s for its values."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = _trained(1e-3, seed=0)
    operator = source.build(torch.float64)
    parts = eigendecomposition(dense_hessian(operator))
    torch.set_num_threads(threads)
    order = MagnitudeOrder.of(operator.weights().numpy())
    eigenvalues, eigenvectors = parts.eigenvalues.numpy(), parts.eigenvectors.numpy()
    return Oracle(source, order, eigenvalues, eigenvectors, exact_delta_measure(eigenvalues, eigenvectors, order))
