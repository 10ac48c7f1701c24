"""What a predictor returns, and the integer search all predictors share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from suite.curvature.quadrature import standard_error
from suite.limits.curvature_treatment import Curvature

# Sums of quadrature weights miss 1 by rounding; without this allowance a flat loss would keep one weight.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class LimitEstimate:
    """A predicted sparsity limit with its parts.

    Attributes:
        sparsity_limit: the largest feasible fraction removed, num_removed / dim.
        lower: feasible with high probability over the random subspace at or below this sparsity.
        upper: infeasible with high probability at or above this sparsity; 1 for a predictor that gives no such bound.
        probe_standard_error: of sparsity_limit over probes; 0 without random probes, nan with one.
        num_removed: the count the limit stands for.
        loss_tolerance_nats: how much the mean loss may rise.
        curvature: what was done with negative eigenvalues.
        num_delta_runs: Lanczos runs from the removed weights that this estimate paid for.
        converged: False when the search stopped at its largest number of runs.
    """

    sparsity_limit: float
    lower: float
    upper: float
    probe_standard_error: float
    num_removed: int
    loss_tolerance_nats: float
    curvature: Curvature
    num_delta_runs: int = 0
    converged: bool = True


def kinematic_half_width(dim: int, failure_probability: float = 0.01) -> float:
    """Return a / sqrt(dim), a = sqrt(8 log(4 / eta)): half the transition from feasible to infeasible, in sparsity.

    Source: Amelunxen, Lotz, McCoy, Tropp (2014), "Living on the edge", Information and Inference 3, theorem I.
    """
    return math.sqrt(8.0 * math.log(4.0 / failure_probability) / dim)


def largest_feasible_count(feasible_fraction: Callable[[int], float], dim: int) -> int:
    """Return the largest n in [0, dim] with n / dim <= feasible_fraction(n), by bisection.

    Args:
        feasible_fraction: does not grow with n; 1 (to rounding) at n = 0.
        dim: number of prunable weights.

    Cost: log2(dim) evaluations.
    """

    def is_feasible(count: int) -> bool:
        return count / dim <= feasible_fraction(count) + _ROUNDING

    if is_feasible(dim):
        return dim
    feasible, infeasible = 0, dim
    while infeasible - feasible > 1:
        middle = (feasible + infeasible) // 2
        if is_feasible(middle):
            feasible = middle
        else:
            infeasible = middle
    return feasible


def count_standard_error(counts: Sequence[int], dim: int, *, sampled: bool) -> float:
    """Return the standard error in sparsity of a limit whose counts per probe are given.

    Each probe alone is solved for its own limit. The limit is a smooth function of the integral over the measure, so
    to first order this is the standard error of the limit of the mean measure.
    """
    return standard_error(np.asarray(counts, dtype=np.float64) / dim, sampled=sampled)


def check_loss_tolerance(loss_tolerance_nats: float) -> None:
    """Refuse a tolerance that is not a positive number of nats.

    Raises:
        ValueError: it is zero, negative, NaN or infinite.
    """
    if not 0.0 < loss_tolerance_nats < math.inf:
        raise ValueError(
            f"loss_tolerance_nats={loss_tolerance_nats} is out of range. Expected: a positive, finite number of nats."
        )
