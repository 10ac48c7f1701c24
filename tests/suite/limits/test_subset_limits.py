"""Limits from subsets, on Hessians that depend on the number of examples in a known way."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import MatrixOperator
from suite.limits.adaptive import Target
from suite.limits.bracket import LIMITS
from suite.limits.exact import exact_limits
from suite.limits.subset_limits import extrapolated, first_size, limits_to_tolerance, next_size
from tests.suite.limits.weighted import Weighted

EPSILON, NUM_EXAMPLES = 0.5, 65_536


@dataclass(frozen=True, eq=False)
class Source:
    """Eigenvalues 1 + bias / n times too large."""

    model: Any
    bias: float
    num_examples: int

    def build(self) -> Weighted:
        scale = 1 + self.bias / self.num_examples - self.bias / NUM_EXAMPLES
        matrix = (self.model.eigenvectors * self.model.eigenvalues) @ self.model.eigenvectors.T
        return Weighted(MatrixOperator(torch.from_numpy(scale * matrix)), self.model.order.weights)


@pytest.fixture(scope="module")
def model(quadratic_model: Callable[..., Any]) -> Any:
    return quadratic_model(1, dim=600, num_zero=60)


def _limits(model: Any, bias: float, tolerance: float = 0.02, **changes: Any) -> Any:
    target = Target(tolerance, EPSILON, "positive", **({"max_dense_dim": 0} | changes))
    with growing_inline_map() as probe_map:
        return limits_to_tolerance(lambda size: Source(model, bias, size), NUM_EXAMPLES, model.order, target, probe_map)


def _exact(model: Any) -> dict[str, float]:
    found = exact_limits(
        model.eigenvalues, model.delta_measure(), model.order, EPSILON, gaussian_width_curvature="positive"
    )
    return {name: getattr(found, name).sparsity_limit for name in LIMITS}


def _found(limits: Any) -> dict[str, float]:
    return {each.limit: each.estimate.sparsity_limit for each in limits.predictions if each.tolerance_factor == 1.0}


def test_without_a_bias_few_examples_are_enough(model: Any) -> None:
    limits = _limits(model, 0.0)
    last = limits.checks[-1]
    assert (limits.converged, limits.method, last.num_examples) == (True, "lanczos", 1024)
    assert last.gradient_equivalents < 3 * last.num_matvecs * 1024 / NUM_EXAMPLES
    for name, value in _found(limits).items():
        assert abs(value - _exact(model)[name]) < 0.04
        assert limits.budgets[name].subset_bias == 0.0
        assert limits.budgets[name].epsilon_sensitivity > 0


def test_a_bias_is_extrapolated_and_counted(model: Any) -> None:
    plain, biased = _limits(model, 0.0), _limits(model, 800.0)
    assert biased.converged
    for name in LIMITS:
        budget = biased.budgets[name]
        assert 0 < budget.subset_bias < 0.02
        assert budget.total <= 0.02
        assert abs(_found(biased)[name] - _found(plain)[name]) < budget.subset_bias


def test_a_large_bias_asks_for_all_examples(model: Any) -> None:
    limits = _limits(model, 300_000.0)
    assert limits.checks[-1].num_examples == NUM_EXAMPLES
    for name, value in _found(limits).items():
        assert limits.budgets[name].subset_bias == 0.0
        assert abs(value - _exact(model)[name]) < 0.04


def test_the_dense_hessian_takes_over_where_it_costs_less(model: Any) -> None:
    limits = _limits(model, 300_000.0, tolerance=1e-4, max_dense_dim=600)
    assert (limits.converged, limits.method) == (True, "dense")
    assert _found(limits) == _exact(model)
    last = limits.checks[-1]
    assert (last.num_lanczos_steps, last.num_probes, last.total) == (0, 0, 0.0)


def test_columns_of_a_dense_hessian_are_reported_as_they_come(model: Any) -> None:
    seen: list[tuple[Any, int]] = []
    target = Target(1e-4, EPSILON, "positive", max_dense_dim=600)
    with growing_inline_map() as probe_map:
        limits = limits_to_tolerance(
            lambda _: Source(model, 0.0, 100), 100, model.order, target, probe_map, lambda *news: seen.append(news)
        )
    columns = [news for news in seen if news[0].num_lanczos_steps == 0][:-1]
    assert [left for _, left in columns] == [*range(600 - 64, 0, -64), 0]
    assert columns[-1][0].num_matvecs == limits.checks[-1].num_matvecs
    assert columns[0][0].limits == limits.checks[-2].limits


def test_a_dense_hessian_that_no_check_went_before_has_no_limits_yet(quadratic_model: Callable[..., Any]) -> None:
    small, seen = quadratic_model(1, dim=40, num_zero=4), []
    with growing_inline_map() as probe_map:
        limits_to_tolerance(
            lambda _: Source(small, 0.0, 100),
            100,
            small.order,
            Target(0.01, EPSILON, "positive"),
            probe_map,
            lambda check, left: seen.append((check.limits, check.total, left)),
        )
    assert seen[0] == ({}, math.inf, 0)
    assert set(seen[-1][0]) == set(LIMITS)


def test_no_convergence_is_said(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        limits = _limits(model, 0.0, tolerance=1e-4, max_num_lanczos_steps=24, max_num_probes=1)
    assert not limits.converged
    assert limits.checks[-1].num_examples == NUM_EXAMPLES
    assert "no convergence to 0.0001: the error is" in caplog.text


def test_sizes() -> None:
    assert [first_size(number) for number in (100, 2047, 2048, 50_000)] == [100, 2047, 256, 256]
    assert next_size(1024, math.inf, 50_000) == 2048
    assert next_size(1024, 0.5, 50_000) == 2048
    assert next_size(1024, 5.0, 50_000) == 8192
    assert next_size(16_384, 1.5, 50_000) == 50_000  # 32,768 is past the half


def test_a_law_of_one_over_n_is_extrapolated_exactly() -> None:
    def limits(size: int) -> dict[str, float]:
        return dict.fromkeys(LIMITS, 0.9 - 8.0 / size)

    seen = [(size, limits(size)) for size in (1024, 2048, 8192)]
    shifts, biases = extrapolated(seen, 65_536)
    for name in LIMITS:
        assert seen[-1][1][name] + shifts[name] == pytest.approx(limits(65_536)[name], abs=1e-12)
        assert biases[name] == pytest.approx(abs(shifts[name]))
    assert set(extrapolated(seen[:2], 65_536)[1].values()) == {math.inf}
    assert set(extrapolated([(64, limits(64))], 64)[1].values()) == {0.0}
