"""Limits beside the predicted ones: the actual masks exactly where the Hessian is small, else by an estimate."""

from collections.abc import Callable
from typing import Any

import pytest

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.quadrature import atoms
from suite.limits.predict import lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder
from suite.measure import beside
from suite.measure.beside import limits_beside
from suite.networks.sources import UserNetwork

TOLERANCE = 0.05
Masked = Callable[[], tuple[dict[str, Any], list[tuple[float, str]]]]


@pytest.fixture
def masked(user_network: UserNetwork) -> Masked:
    """Return a function that searches the limit of the masks, and what it told on the way."""
    network = user_network.load()
    operator, order = network.hessian("float64"), MagnitudeOrder.of(network.weights())
    measure = atoms(eigendecomposition(dense_hessian(operator)).eigenvalues.numpy())
    predictions = predict(measure, order, TOLERANCE, lanczos_delta_measure(operator, order, operator.dim), "positive")

    def search() -> tuple[dict[str, Any], list[tuple[float, str]]]:
        told: list[tuple[float, str]] = []
        found = limits_beside(
            operator,
            network,
            predictions,
            ["masked"],
            loss_tolerance_nats=TOLERANCE,
            seed=0,
            progress=lambda *each: told.append(each),
        )
        return found["masked_quadratic"], told

    return search


def test_a_small_network_has_its_exact_limit_for_as_many_products_as_weights(masked: Masked) -> None:
    found, told = masked()
    assert found["matrix"] == "positive part of the dense Hessian"
    assert found["lower"] == found["sparsity_limit"] < found["upper"] == found["sparsity_limit"] + 1 / 72
    assert found["at_half_tolerance"] <= found["sparsity_limit"] <= found["at_double_tolerance"]
    assert found["num_matvecs"] <= 72 + 1
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)


def test_a_large_network_has_an_estimate_that_bounds_nothing(masked: Masked, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, _ = masked()
    monkeypatch.setattr(beside, "MAX_EXACT_DIM", 71)
    found, told = masked()
    assert found["matrix"] == "convexified"
    assert found["sparsity_limit"] == pytest.approx(exact["sparsity_limit"], abs=0.1)
    assert (found["lower"], found["upper"]) == (None, None)
    assert sum(found["statuses"].values()) == len(found["solves"])
    assert sum(solve["num_matvecs"] for solve in found["solves"]) <= found["num_matvecs"]
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] < 1.0
    assert {words.partition(":")[0] for _, words in told} == {
        "preparing the masks' matrix",
        *(f"masks at {factor} times the loss tolerance" for factor in ("0.5", "1", "2")),
    }
