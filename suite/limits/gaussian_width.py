"""The published predictor: sparsity limit from the Gaussian width of the sublevel set.

Source: Zhang, Zhang, Sun, Liu (2024), NeurIPS, "How sparse can we prune a deep network: a fundamental limit
perspective". Their abstract calls the fraction kept "pruning ratio"; `sparsity` here is the fraction removed.
Differs: the functional is smooth in the spectrum, so it is a plain quadrature; no density is drawn, nothing smoothed.
"""

import sys

import numpy as np

from suite.curvature.quadrature import SpectralMeasure
from suite.limits.curvature_treatment import Curvature, treated
from suite.limits.estimate import (
    LimitEstimate,
    check_loss_tolerance,
    count_standard_error,
    kinematic_half_width,
    largest_feasible_count,
)
from suite.limits.removal import MagnitudeOrder


def gaussian_width_limit(
    measure: SpectralMeasure,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    *,
    curvature: Curvature = "abs",
) -> LimitEstimate:
    """Solve s = integral of c / (lambda + c), c = 2 epsilon / R(s)^2, for the largest count of removed weights.

    Args:
        measure: spectral measure of the Hessian over the prunable weights, random probes or exact.
        order: the prunable weights, in the same units as the Hessian's.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        curvature: treatment of negative eigenvalues; "abs" as published.

    Returns:
        The limit; `upper` is 1, because the formula never exceeds the sharp one and bounds the limit from below only.

    Raises:
        ValueError: loss_tolerance_nats is not positive.

    Cost: log2(dim) sums over the nodes, per probe.
    """
    check_loss_tolerance(loss_tolerance_nats)
    nonnegative = treated(measure, curvature)
    count = _largest_count(nonnegative, order, loss_tolerance_nats)
    per_probe = [
        _largest_count(SpectralMeasure((rule,)), order, loss_tolerance_nats) for rule in nonnegative.quadratures
    ]
    limit = count / order.dim
    return LimitEstimate(
        sparsity_limit=limit,
        lower=max(0.0, limit - kinematic_half_width(order.dim)),
        upper=1.0,
        probe_standard_error=count_standard_error(per_probe, order.dim, sampled=measure.sampled),
        num_removed=count,
        loss_tolerance_nats=loss_tolerance_nats,
        curvature=curvature,
    )


def gaussian_width_fraction(nonnegative: SpectralMeasure, radius: float, loss_tolerance_nats: float) -> float:
    """Return integral of c / (lambda + c), c = 2 epsilon / radius^2: one minus the effective dimension over dim.

    Args:
        nonnegative: spectral measure with nodes >= 0.
        radius: length of the removed weights, >= 0; 1 is returned at 0.
        loss_tolerance_nats: epsilon > 0.
    """
    # Largest float instead of infinity: infinity times an eigenvalue of zero would be NaN.
    theta = min(radius * radius / (2.0 * loss_tolerance_nats), sys.float_info.max)
    return shrunk_fraction(nonnegative, theta)


def shrunk_fraction(nonnegative: SpectralMeasure, theta: float) -> float:
    """Return integral of 1 / (1 + theta lambda) over a spectral measure with nodes >= 0."""
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that is meant
        return nonnegative.integrate(lambda nodes: 1.0 / (1.0 + theta * nodes))[0]


def _largest_count(nonnegative: SpectralMeasure, order: MagnitudeOrder, loss_tolerance_nats: float) -> int:
    return largest_feasible_count(
        lambda count: gaussian_width_fraction(nonnegative, order.radius(count), loss_tolerance_nats), order.dim
    )
