"""Limits at half and double the loss tolerance, on a Hessian where the removed weights' direction moves fast."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import DiagonalOperator
from suite.curvature.quadrature import atoms
from suite.limits.adaptive import Ledger, StepSearch, Target
from suite.limits.bracket import LIMITS, Runs
from suite.limits.other_tolerances import with_the_direction_held, with_their_own_directions
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import limits_to_tolerance, unreported
from tests.suite.limits.weighted import Weighted

DIM, EPSILON = 2000, 60.0


@dataclass(frozen=True, eq=False)
class Source:
    """A diagonal Hessian that is flat where weights are small."""

    eigenvalues: np.ndarray
    order: MagnitudeOrder

    def build(self) -> Weighted:
        return Weighted(DiagonalOperator(torch.from_numpy(self.eigenvalues)), self.order.weights)

    def exact(self) -> dict[tuple[str, float], float]:
        def direction(count: int) -> Any:
            return atoms(self.eigenvalues, (self.order.removed(count) / self.order.radius(count)) ** 2)

        found = predict(atoms(self.eigenvalues), self.order, EPSILON, direction, "abs", resolution=0.0)
        return {(each.limit, each.tolerance_factor): each.estimate.sparsity_limit for each in found}


def _source(seed: int) -> Source:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(DIM)
    return Source(np.exp(rng.uniform(-3, 1, DIM)) * (0.05 + np.abs(weights)) ** 3, MagnitudeOrder.of(weights))


def _searched(source: Source, probe_map: Any) -> tuple[Runs, StepSearch]:
    target = Target(0.005, EPSILON, "abs", max_dense_dim=0)
    search = StepSearch(source.order, target, probe_map, Ledger(100), unreported)
    runs, converged = search.run(source, 100, target.tolerance)
    assert converged
    return runs, search


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_their_own_directions_take_most_of_the_error_away(seed: int) -> None:
    source = _source(seed)
    with growing_inline_map() as probe_map:
        runs, search = _searched(source, probe_map)
        held, own = with_the_direction_held(runs, EPSILON), with_their_own_directions(runs, search, source, 100)
    exact = source.exact()
    for scale in (0.5, 2.0):
        before, after = (
            abs(found["statistical_dimension", scale] - exact["statistical_dimension", scale]) for found in (held, own)
        )
        assert before > 0.01
        assert after < 0.25 * before
        assert own["gaussian_width", scale] == held["gaussian_width", scale]
    for name in LIMITS:
        assert own[name, 1.0] == held[name, 1.0]


def test_no_limit_falls_with_the_tolerance_or_below_the_published_one() -> None:
    source = _source(1)
    with growing_inline_map() as probe_map:
        own = with_their_own_directions(*_searched(source, probe_map), source, 100)
    for name in LIMITS:
        assert own[name, 0.5] < own[name, 1.0] < own[name, 2.0]
    assert all(own["statistical_dimension", scale] >= own["gaussian_width", scale] for scale in (0.5, 1.0, 2.0))


def test_two_short_runs_are_paid_for_and_entered() -> None:
    source = _source(1)
    with growing_inline_map() as probe_map:
        runs, search = _searched(source, probe_map)
        before = search.checks[-1].num_matvecs
        limits = limits_to_tolerance(lambda _: source, 100, source.order, search.target, probe_map)
    assert runs.removed is not None
    steps = min(max(32, runs.removed.num_lanczos_steps // 4), runs.removed.num_lanczos_steps)
    assert limits.checks[-1].num_matvecs == before + 2 * steps
    for name in LIMITS:
        at = {each.tolerance_factor: each.estimate.sparsity_limit for each in limits.predictions if each.limit == name}
        assert limits.budgets[name].epsilon_sensitivity == pytest.approx(0.5 * (at[2.0] - at[0.5]))


def test_a_network_of_zeros_needs_no_run() -> None:
    source = Source(np.linspace(0.0, 1.0, DIM), MagnitudeOrder.of(np.zeros(DIM)))
    with growing_inline_map() as probe_map:
        own = with_their_own_directions(*_searched(source, probe_map), source, 100)
    assert set(own.values()) == {1.0}
