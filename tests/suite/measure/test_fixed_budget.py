"""What a fixed effort says about its own error, against the whole Hessian."""

import math

import pytest
import torch

from suite.curvature.dense import dense_hessian
from suite.curvature.quadrature import atoms
from suite.limits.bracket import LIMITS
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.measure import Effort, measure_limits
from suite.networks.sources import UserNetwork


@pytest.mark.parametrize("loss_tolerance", [0.002, 0.02])
@pytest.mark.parametrize("steps", [4, 8, 16])
def test_the_exact_limit_lies_within_what_few_steps_say(
    user_network: UserNetwork, steps: int, loss_tolerance: float
) -> None:
    found = measure_limits(user_network, Effort(4, steps), loss_tolerance_nats=loss_tolerance).values
    eigenvalues, eigenvectors = torch.linalg.eigh(dense_hessian(user_network.build(), max_dim=100))
    order = MagnitudeOrder.of(user_network.load().weights())
    delta_measure = exact_delta_measure(eigenvalues.numpy(), eigenvectors.numpy(), order)
    exact = predict(atoms(eigenvalues.numpy()), order, loss_tolerance, delta_measure, "abs", resolution=0.0)
    for prediction in (each for each in exact if each.tolerance_factor == 1.0):
        limit, budget = found[prediction.limit], found[prediction.limit]["budget"]
        wanted = prediction.estimate.sparsity_limit
        error = 3 * budget["probe_standard_error"] + budget["truncation"] + 1 / order.dim
        assert abs(limit["sparsity_limit"] - wanted) <= error
        assert budget["total"] == pytest.approx(math.hypot(budget["probe_standard_error"], budget["truncation"]))
        assert limit["lower"] <= max(0.0, prediction.estimate.lower - budget["total"] + error)


def test_more_steps_leave_less_truncation_and_examples_left_out_are_not_known(user_network: UserNetwork) -> None:
    few, all_steps = (measure_limits(user_network, Effort(2, steps), loss_tolerance_nats=0.02) for steps in (4, 72))
    part = measure_limits(user_network.with_examples(20, 0), Effort(2, 72), loss_tolerance_nats=0.02)
    for name in LIMITS:
        assert few.values[name]["budget"]["truncation"] > all_steps.values[name]["budget"]["truncation"]
        assert all_steps.values[name]["budget"]["truncation"] <= 2 / 72
        assert part.values[name]["budget"]["subset_bias"] is None
        assert part.values[name]["budget"]["total"] is None
