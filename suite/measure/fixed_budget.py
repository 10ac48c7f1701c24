"""The errors of limits that a fixed effort gave, from the same runs: no product more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from suite.curvature.lanczos import Tridiagonal
from suite.limits.bracket import LIMITS, Runs
from suite.limits.error_budget import ErrorBudget
from suite.limits.predict import Prediction
from suite.limits.removal import MagnitudeOrder


def fixed_effort_budgets(
    probes: Sequence[Tridiagonal],
    removed: Mapping[int, Tridiagonal],
    order: MagnitudeOrder,
    predictions: Sequence[Prediction],
    *,
    of_all_examples: bool,
) -> dict[str, ErrorBudget]:
    """Return limit -> its errors at the loss tolerance itself.

    A fixed effort takes the Gauss rules' limit. Its truncation is that of the middle between both rules (see
    suite.limits.bracket), and the way from there to the limit.

    Args:
        probes: one run per random probe.
        removed: count of removed weights -> the run from them.
        order: the prunable weights.
        predictions: both limits at all tolerance factors.
        of_all_examples: False: what the examples left out would change is not known, hence infinite.

    Cost: see Runs.bracket.
    """
    estimates = {(each.limit, each.tolerance_factor): each.estimate for each in predictions}
    sharp = estimates["statistical_dimension", 1.0]
    nearest = min(removed, key=lambda count: abs(count - sharp.num_removed), default=None)
    runs = Runs(probes, None if nearest is None else removed[nearest], order, sharp.curvature)
    budgets = {}
    for name in LIMITS:
        limit = estimates[name, 1.0]
        if order.num_zero_weights == order.dim:
            budget = ErrorBudget(0.0, 0.0)
        else:
            bracket = runs.bracket(name, limit.loss_tolerance_nats)
            truncation = bracket.truncation + abs(limit.sparsity_limit - bracket.middle)
            budget = ErrorBudget(bracket.probe_standard_error, truncation)
        double, half = (estimates[name, factor].sparsity_limit for factor in (2.0, 0.5))
        bias = 0.0 if of_all_examples else math.inf
        budgets[name] = replace(budget, subset_bias=bias, epsilon_sensitivity=0.5 * (double - half))
    return budgets
