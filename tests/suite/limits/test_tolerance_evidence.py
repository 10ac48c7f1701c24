"""Limits to a tolerance against the dense Hessian of networks trained on the digits, seed by seed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from data import ensure as ensure_dataset
from data import read_dataset
from suite.curvature.arithmetic import Execution
from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import HessianOperator
from suite.curvature.quadrature import atoms
from suite.limits.adaptive import Target
from suite.limits.bracket import LIMITS
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import limits_to_tolerance

pytestmark = pytest.mark.slow
EPSILON = 0.005


@dataclass(frozen=True, eq=False)
class Source:
    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor

    def build(self, dtype: torch.dtype = torch.float32) -> HessianOperator:
        names = [name for name, value in self.model.named_parameters() if value.ndim > 1]
        kept = Execution(keep_graphs=True)
        return HessianOperator(self.model, names, [(self.inputs, self.targets)], dtype, execution=kept)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 6, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 10, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40, 10),
    )


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _trained(build: Callable[[], nn.Module], seed: int) -> Source:
    """Train 40 epochs of SGD 0.05, momentum 0.9, batch 64, L1 5e-4, on the training split.

    The Hessian of a convolutional network, whose float64 products are slow, is that of every fourth example.
    """
    torch.manual_seed(seed)
    split = read_dataset(ensure_dataset("digits")).splits["train"]
    inputs, targets = torch.from_numpy(split.inputs), torch.from_numpy(split.targets)
    model = build()
    weights = [value for value in model.parameters() if value.ndim > 1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for _ in range(40):
        for batch in torch.randperm(len(inputs)).split(64):
            penalty = sum(weight.abs().sum() for weight in weights)
            loss = functional.cross_entropy(model(inputs[batch]), targets[batch]) + 5e-4 * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    stride = 4 if build is _cnn else 1
    return Source(model.eval(), inputs[::stride], targets[::stride])


def _exact(source: Source, order: MagnitudeOrder) -> dict[str, float]:
    eigen = eigendecomposition(dense_hessian(source.build(torch.float64)))
    values = eigen.eigenvalues.numpy()
    measure = exact_delta_measure(values, eigen.eigenvectors.numpy(), order)
    found = predict(atoms(values), order, EPSILON, measure, "abs", resolution=0.0)
    return {each.limit: each.estimate.sparsity_limit for each in found if each.tolerance_factor == 1.0}


def _found(source: Source, order: MagnitudeOrder, seed: int, tolerance: float) -> tuple[dict[str, float], Any]:
    target = Target(tolerance, EPSILON, "abs", seed=seed, max_dense_dim=0)
    with growing_inline_map() as probe_map:
        limits = limits_to_tolerance(lambda _: source, len(source.targets), order, target, probe_map)
    assert limits.converged
    found = {each.limit: each.estimate.sparsity_limit for each in limits.predictions if each.tolerance_factor == 1.0}
    return found, limits.checks[-1]


@pytest.mark.parametrize("build", [_mlp, _cnn])
def test_most_limits_come_within_the_tolerance_and_all_within_twice(build: Callable[[], nn.Module]) -> None:
    shares = []
    for seed in range(5):
        source = _trained(build, seed)
        order = MagnitudeOrder.of(source.build().weights().numpy())
        exact = _exact(source, order)
        for tolerance in (0.005, 0.02):
            found, last = _found(source, order, seed, tolerance)
            assert last.total <= tolerance
            shares += [abs(found[name] - exact[name]) / tolerance for name in LIMITS]
    assert np.mean(np.array(shares) <= 1.0) >= 0.8
    assert max(shares) <= 2.0
