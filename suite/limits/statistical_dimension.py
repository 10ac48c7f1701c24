"""The sharp predictor: sparsity limit from the statistical dimension of the descent cone.

A random subspace of kept weights meets the sublevel set seen from the pruned point when its dimension and the cone's
statistical dimension together pass dim. Source: Amelunxen, Lotz, McCoy, Tropp (2014), "Living on the edge: phase
transitions in convex programs with random data", Information and Inference 3, theorem I. The cone's dimension follows
by Lagrange duality, exact for large dim: delta / dim = integral of 1 / (1 + theta lambda) d mu, with theta the root of
integral of lambda / (1 + theta lambda) d nu = 2 epsilon / R^2; mu is the spectral measure of the Hessian and nu that of
the removed weights' direction.
"""

import logging
import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from suite.curvature.quadrature import Quadrature, SpectralMeasure
from suite.limits.curvature_treatment import Curvature, treated
from suite.limits.estimate import (
    LimitEstimate,
    check_loss_tolerance,
    count_standard_error,
    kinematic_half_width,
    largest_feasible_count,
)
from suite.limits.gaussian_width import gaussian_width_limit, shrunk_fraction
from suite.limits.removal import MagnitudeOrder

logger = logging.getLogger(__name__)

DeltaMeasure = Callable[[int], SpectralMeasure]  # count of removed weights -> spectral measure of their direction


class DeltaRuns:
    """Remembers the spectral measures of removed weights, so that several tolerances share their Lanczos runs.

    Args:
        delta_measure: one run, from the vector of the given count of removed weights.
    """

    def __init__(self, delta_measure: DeltaMeasure) -> None:
        self._delta_measure = delta_measure
        self._known: dict[int, SpectralMeasure] = {}

    def __call__(self, num_removed: int) -> SpectralMeasure:
        """Return the measure for a count, running it the first time."""
        if num_removed not in self._known:
            self._known[num_removed] = self._delta_measure(num_removed)
        return self._known[num_removed]

    @property
    def num_runs(self) -> int:
        """Runs made so far."""
        return len(self._known)

    def nearest(self, num_removed: int) -> SpectralMeasure | None:
        """Return the known measure at the nearest count, None before the first run."""
        if not self._known:
            return None
        return self._known[min(self._known, key=lambda count: abs(count - num_removed))]


def statistical_dimension_limit(
    measure: SpectralMeasure,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    delta_measure: DeltaMeasure,
    *,
    curvature: Curvature = "positive",
    resolution: float = 1e-4,
    max_runs: int = 20,
) -> LimitEstimate:
    """Solve s = delta(C(s)) / dim for the largest count of removed weights, with few runs from the removed weights.

    nu changes slowly with s while R(s) is known for every s. So one run at a count gives a limit by bisection with
    its nu held fixed, and a safeguarded secant search looks for the count whose limit is the count itself, starting
    from the published predictor's limit. Assumes a single such count. Four runs are typical at the default
    resolution; the error left is the last step times the small rate at which nu changes.

    Args:
        measure: mu, spectral measure of the Hessian over the prunable weights, random probes or exact.
        order: the prunable weights, in the same units as the Hessian's.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        delta_measure: nu, called with counts whose removed weights are not all zero. Pass one DeltaRuns to several
            calls to share runs.
        curvature: treatment of negative eigenvalues, in mu and nu alike.
        resolution: the search ends when one step changes the sparsity by no more; 0, or a step below one weight, goes
            on until a count is feasible and the next is not.
        max_runs: the search ends, with converged=False and a warning, after so many runs.

    Returns:
        The limit with its two-sided bounds and the number of runs it paid for.

    Raises:
        ValueError: loss_tolerance_nats is not positive, or resolution is negative.

    Cost: the runs; all else is sums over nodes.
    """
    check_loss_tolerance(loss_tolerance_nats)
    if not resolution >= 0.0:
        raise ValueError(f"resolution={resolution} is negative. Expected: a step in sparsity >= 0.")
    runs = delta_measure if isinstance(delta_measure, DeltaRuns) else DeltaRuns(delta_measure)
    runs_before = runs.num_runs
    mu = treated(measure, curvature)

    def implied(nu: SpectralMeasure, probes: SpectralMeasure = mu) -> int:
        return implied_count(probes, treated(nu, curvature).pooled(), order, loss_tolerance_nats)

    count, converged, counts_per_probe = order.dim, True, [order.dim] * len(mu.quadratures)
    if order.num_zero_weights < order.dim:
        start = gaussian_width_limit(measure, order, loss_tolerance_nats, curvature=curvature).num_removed
        known = runs.nearest(start)
        count, converged = _fixed_point(
            lambda at: implied(runs(at)),
            start if known is None else implied(known),
            lowest=order.num_zero_weights,
            highest=order.dim,
            largest_step=math.floor(resolution * order.dim),
            max_runs=max_runs,
        )
        nu = runs.nearest(count)
        assert nu is not None
        counts_per_probe = [implied(nu, SpectralMeasure((rule,))) for rule in mu.quadratures]
    if not converged:
        logger.warning("statistical dimension: no convergence to %g after %d runs", resolution, max_runs)
    limit, half_width = count / order.dim, kinematic_half_width(order.dim)
    return LimitEstimate(
        sparsity_limit=limit,
        lower=max(0.0, limit - half_width),
        upper=min(1.0, limit + half_width),
        probe_standard_error=count_standard_error(counts_per_probe, order.dim, sampled=measure.sampled),
        num_removed=count,
        loss_tolerance_nats=loss_tolerance_nats,
        curvature=curvature,
        num_delta_runs=runs.num_runs - runs_before,
        converged=converged,
    )


def implied_count(mu: SpectralMeasure, nu: Quadrature, order: MagnitudeOrder, loss_tolerance_nats: float) -> int:
    """Return the largest feasible count of removed weights while nu is held fixed.

    Args:
        mu: spectral measure of the Hessian, nodes >= 0.
        nu: spectral measure of the direction of some count's removed weights, nodes >= 0.
        order: the prunable weights.
        loss_tolerance_nats: epsilon > 0.
    """
    return largest_feasible_count(
        lambda count: statistical_dimension_fraction(mu, nu, order.radius(count), loss_tolerance_nats), order.dim
    )


def statistical_dimension_fraction(
    mu: SpectralMeasure, nu: Quadrature, radius: float, loss_tolerance_nats: float
) -> float:
    """Return delta(C) / dim for one pruned point, in [0, 1].

    Args:
        mu: spectral measure of the Hessian, nodes >= 0.
        nu: spectral measure of the removed weights' direction, nodes >= 0.
        radius: length of the removed weights, >= 0; 1 is returned at 0.
        loss_tolerance_nats: epsilon > 0. When the pruned point lies inside the sublevel set already, the cone is
            the whole space and 1 is returned.
    """
    return shrunk_fraction(mu, optimal_theta(nu, radius, loss_tolerance_nats)) if radius > 0.0 else 1.0


def optimal_theta(nu: Quadrature, radius: float, loss_tolerance_nats: float) -> float:
    """Return theta >= 0, the root of integral of lambda / (1 + theta lambda) d nu = 2 epsilon / radius^2.

    Args:
        nu: spectral measure with nodes >= 0; mass at zero adds nothing to the integral.
        radius: > 0.
        loss_tolerance_nats: epsilon > 0.

    Returns:
        0 when the integral at 0 (the curvature along the direction) does not pass the right-hand side. Otherwise the
        root, to about 13 digits; it is below radius^2 / (2 epsilon), the value the published predictor uses.
    """
    largest = float(nu.nodes.max())
    target = 2.0 * loss_tolerance_nats / radius / radius  # the square may underflow to zero
    if largest == 0.0 or float(np.dot(nu.quadrature_weights, nu.nodes)) <= target:
        return 0.0
    # In units of the largest node, so that squares neither overflow nor vanish.
    nodes, target = nu.nodes / largest, target / largest
    first, second = (float(np.dot(nu.quadrature_weights, nodes**power)) for power in (1, 2))

    def excess(log_theta: float) -> float:
        return float(np.dot(nu.quadrature_weights, nodes / (1.0 + math.exp(log_theta) * nodes))) - target

    # The integral is convex and decreasing, hence above its tangent at 0; and it is below 1 / theta.
    low, high = math.log(max((first - target) / second, 1e-300)), -math.log(max(target, 1e-300))
    if low >= high or excess(low) <= 0.0:
        return math.exp(low) / largest
    if excess(high) >= 0.0:
        return math.exp(high) / largest
    return math.exp(brentq(excess, low, high, xtol=1e-13)) / largest


def _fixed_point(
    implied: Callable[[int], int], start: int, *, lowest: int, highest: int, largest_step: int, max_runs: int
) -> tuple[int, bool]:
    """Find a count n <= highest with implied(n) = n; return it and whether the search converged.

    A count is feasible with its own nu exactly when implied(n) >= n. With largest_step 0 the search therefore ends
    between neighbours of which the lower is feasible and the upper is not.
    """
    below, above = lowest, highest + 1  # feasible, infeasible
    count = min(max(start, lowest + 1), highest)
    visited: list[tuple[int, int]] = []  # count, implied step
    result = count
    for _ in range(max_runs):
        result = implied(count)
        step = result - count
        if abs(step) <= largest_step and largest_step > 0:
            return result, True
        visited.append((count, step))
        if step >= 0:
            below = count
        else:
            above = count
        if above - below <= 1:
            return below, True
        count = _next_count(visited, result, below, above)
    return result, False


def _next_count(visited: list[tuple[int, int]], implied: int, below: int, above: int) -> int:
    """Choose the next count strictly inside the bracket: the secant's, the implied one, or the middle."""
    candidates = [implied, (below + above) // 2]
    if visited[-1][1] == 0:
        candidates.insert(0, below + 1)
    elif len(visited) >= 2:
        (first, first_step), (second, second_step) = visited[-2:]
        if first_step != second_step:
            candidates.insert(0, round(second - second_step * (second - first) / (second_step - first_step)))
    return next(candidate for candidate in candidates if below < candidate < above)
