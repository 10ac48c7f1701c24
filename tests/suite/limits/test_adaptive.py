"""The search over steps and probes, on a Hessian whose limits are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import DiagonalOperator, MatrixOperator
from suite.curvature.slq import inline_map
from suite.limits.adaptive import Ledger, StepSearch, Target, next_steps
from suite.limits.bracket import LIMITS
from suite.limits.exact import exact_limits
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import limits_to_tolerance, unreported
from tests.suite.limits.weighted import Weighted

EPSILON = 0.5


@dataclass(frozen=True, eq=False)
class Source:
    model: Any

    def build(self) -> Weighted:
        matrix = (self.model.eigenvectors * self.model.eigenvalues) @ self.model.eigenvectors.T
        return Weighted(MatrixOperator(torch.from_numpy(matrix)), self.model.order.weights)


def _search(model: Any, tolerance: float, probe_map: Any, **changes: Any) -> tuple[StepSearch, bool]:
    target = Target(tolerance, EPSILON, "positive", **({"max_dense_dim": 0} | changes))
    search = StepSearch(model.order, target, probe_map, Ledger(100), unreported)
    _, converged = search.run(Source(model), 100, tolerance)
    return search, converged


@pytest.fixture(scope="module")
def model(quadratic_model: Callable[..., Any]) -> Any:
    return quadratic_model(1, dim=600, num_zero=60)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("tolerance", [0.01, 0.03])
def test_both_limits_come_within_three_times_the_reported_error(model: Any, seed: int, tolerance: float) -> None:
    with growing_inline_map() as probe_map:
        search, converged = _search(model, tolerance, probe_map, seed=seed)
    assert converged
    exact = exact_limits(
        model.eigenvalues, model.delta_measure(), model.order, EPSILON, gaussian_width_curvature="positive"
    )
    check = search.checks[-1]
    assert check.total <= tolerance
    for name in LIMITS:
        error = abs(check.limits[name] - getattr(exact, name).sparsity_limit)
        assert error < 3 * check.budgets[name].total + 1 / 600


def test_a_smaller_tolerance_costs_more(model: Any) -> None:
    with growing_inline_map() as probe_map:
        costs = [_search(model, tolerance, probe_map)[0].checks[-1].num_matvecs for tolerance in (0.05, 0.01, 0.004)]
    assert costs == sorted(costs)
    assert costs[0] < costs[2]


def test_the_ledger_holds_what_a_map_that_keeps_runs_pays(model: Any) -> None:
    operators = []

    @dataclass(frozen=True)
    class Counting:
        def build(self) -> Weighted:
            operators.append(Source(model).build())
            return operators[-1]

    target = Target(0.01, EPSILON, "positive", max_dense_dim=0)
    with growing_inline_map() as probe_map:
        search = StepSearch(model.order, target, probe_map, Ledger(200), unreported)
        search.run(Counting(), 100, 0.01)
    assert len(operators) == 1
    assert search.checks[-1].num_matvecs == operators[0].num_matvecs
    assert search.checks[-1].gradient_equivalents == 2 * operators[0].num_matvecs * 100 / 200


def test_a_map_that_keeps_nothing_gives_the_same_checks(model: Any) -> None:
    with growing_inline_map() as probe_map:
        kept, _ = _search(model, 0.01, probe_map)
    fresh, _ = _search(model, 0.01, inline_map)
    assert kept.checks == fresh.checks


def test_a_search_that_may_not_go_on_says_so(model: Any) -> None:
    with growing_inline_map() as probe_map:
        search, converged = _search(model, 1e-5, probe_map, max_num_lanczos_steps=30, max_num_probes=2)
    assert not converged
    check = search.checks[-1]
    assert (check.num_lanczos_steps, check.num_probes) == (30, 2)
    assert set(check.limits) == set(LIMITS)
    assert check.total > 1e-5


@dataclass(frozen=True, eq=False)
class Clustered:
    """Eigenvalues of both signs within some 1e-6 of zero, some others up to 0.5; the axes are the eigenvectors."""

    dim: int
    num_others: int

    def build(self) -> Weighted:
        rng = np.random.default_rng(0)
        others = np.exp(rng.uniform(np.log(1e-3), np.log(0.5), self.num_others))
        others[: self.num_others // 5] *= -0.1
        cluster = 2e-6 * rng.standard_normal(self.dim - self.num_others)
        eigenvalues = torch.from_numpy(np.concatenate([others, cluster]))
        return Weighted(DiagonalOperator(eigenvalues), self.weights())

    def weights(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal(self.dim)

    def limits(self, probe_map: Any, tolerance: float = 0.02, **changes: Any) -> Any:
        target = Target(tolerance, 5e-8 * self.dim, "abs", **({"max_dense_dim": 0} | changes))
        return limits_to_tolerance(lambda _: self, 100, MagnitudeOrder.of(self.weights()), target, probe_map)


def test_a_tolerance_out_of_reach_is_given_up_early_and_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with growing_inline_map() as probe_map:
        limits = Clustered(30_000, 1500).limits(probe_map)
    assert not limits.converged
    assert limits.checks[-1].num_lanczos_steps == 128
    assert set(limits.checks[-1].limits) == set(LIMITS)
    assert max(budget.truncation for budget in limits.budgets.values()) > 0.08
    assert "loss_tolerance_nats=0.0015 is so small that the limits hang on eigenvalues of about" in caplog.text
    assert len(caplog.records) == 1


def test_few_eigenvalues_far_out_are_found_and_the_search_goes_on() -> None:
    with growing_inline_map() as probe_map:
        limits = Clustered(2000, 100).limits(probe_map)
    assert limits.converged
    assert limits.checks[-1].num_lanczos_steps > 128


def test_the_dense_hessian_takes_over_what_steps_cannot_reach() -> None:
    with growing_inline_map() as probe_map:
        limits = Clustered(1200, 900).limits(probe_map, 0.01, max_num_lanczos_steps=192, max_dense_dim=1200)
    assert (limits.converged, limits.method) == (True, "dense")


def test_few_weights_are_cheaper_whole(model: Any) -> None:
    for dense_dim, num_examples, expected in ((600, 100, True), (599, 100, False), (600, 90, False)):
        target = Target(0.001, EPSILON, "positive", max_dense_dim=dense_dim)
        search = StepSearch(model.order, target, inline_map, Ledger(100), unreported)
        search.num_lanczos_steps, search.num_probes = 48, 9
        assert search.dense_is_cheaper(num_examples) == expected  # 1.6 * 600 gradients against 2 * 10 * 48


def test_steps_grow_by_a_third_or_a_half() -> None:
    steps = [24]
    while steps[-1] < 500:
        steps.append(next_steps(steps[-1]))
    assert steps == [24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert [next_steps(number) for number in (1, 2, 3, 30, 100)] == [2, 3, 4, 32, 128]


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -0.1, float("nan")])
def test_tolerances_out_of_range(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"is out of range\. Expected: a sparsity between 0 and 1"):
        Target(tolerance, EPSILON)
