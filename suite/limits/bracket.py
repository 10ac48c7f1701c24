"""A limit between two quadrature rules of the same Lanczos runs, and how far it may be off.

The Gauss rule gives a lower limit, the Gauss-Radau rule with a node at 0 an upper one; the estimate is the middle. For
eigenvalues >= 0 both are bounds (see suite.curvature.rules). Negative ones, which are folded over or cut off
afterwards, leave both ends heuristic, and the Gauss rule's jumps whenever a node crosses 0: then the averaged Gauss
rule takes its place. So `truncation` is half the bracket, or the change since a half or three quarters of the
steps where that is more. Changes alone proved no measure of the error: it was up to four times as large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from suite.curvature.quadrature import Quadrature, SpectralMeasure, gauss_quadrature
from suite.curvature.rules import averaged_quadrature, radau_quadrature
from suite.limits.curvature_treatment import Curvature, treated
from suite.limits.gaussian_width import gaussian_width_fraction, gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import implied_count, optimal_theta, statistical_dimension_fraction

if TYPE_CHECKING:  # the formulas need no torch
    from suite.curvature.lanczos import Tridiagonal

LIMITS = ("gaussian_width", "statistical_dimension")
_EARLIER = (0.75, 0.5)  # of the steps: where the limit is looked at again
_ROUNDING = 1e-6  # of float32, against the largest eigenvalue
_SLOPE_STEP = 0.005  # in sparsity, to either side


@dataclass(frozen=True)
class Bracket:
    """One limit with its errors, in sparsity.

    Attributes:
        low: from the Gauss rules, or the averaged ones.
        high: from the Gauss-Radau rules.
        truncation: see the module.
        probe_standard_error: see probe_standard_error.
    """

    low: float
    high: float
    truncation: float
    probe_standard_error: float

    @property
    def middle(self) -> float:
        """Return the estimate."""
        return 0.5 * (self.low + self.high)


@dataclass(frozen=True, eq=False)
class Runs:
    """Finished Lanczos runs on one Hessian, and what a limit is computed with.

    Attributes:
        probes: one per random probe, at least one.
        removed: from the removed weights, at a count near the limit; None while there is none.
        order: the prunable weights.
        curvature: treatment of negative eigenvalues.
    """

    probes: "Sequence[Tridiagonal]"
    removed: "Tridiagonal | None"
    order: MagnitudeOrder
    curvature: Curvature

    def shortened(self, fraction: float) -> "Runs":
        """Return the runs as they stood after a fraction of their steps, at least one."""
        removed = None if self.removed is None else shortened(self.removed, fraction)
        return Runs([shortened(run, fraction) for run in self.probes], removed, self.order, self.curvature)

    def limit(self, name: str, loss_tolerance_nats: float, *, upper: bool) -> float:
        """Return one limit from one kind of rule, in sparsity; the direction of the removed weights is held fixed.

        Held fixed, it moves the statistical dimension's limit by 0.15 of the distance, in sparsity, between the
        removed weights' count and the limit (measured on two networks for digits that were trained with an L1 penalty;
        further away, and without a penalty, by more).
        """
        mu = self.probe_measure(upper=upper)
        if name == "gaussian_width":
            return gaussian_width_limit(mu, self.order, loss_tolerance_nats, curvature=self.curvature).sparsity_limit
        nu = self._direction(upper)
        return implied_count(treated(mu, self.curvature), nu, self.order, loss_tolerance_nats) / self.order.dim

    def middle(self, name: str, loss_tolerance_nats: float) -> float:
        """Return the middle of one limit's two rules, the estimate; see limit."""
        return 0.5 * sum(self.limit(name, loss_tolerance_nats, upper=upper) for upper in (False, True))

    def bracket(self, name: str, loss_tolerance_nats: float) -> Bracket:
        """Return one limit with its errors.

        Cost: six limits and a handful of integrals over the nodes; no product.
        """
        low, high = (self.limit(name, loss_tolerance_nats, upper=upper) for upper in (False, True))
        truncation, middle = 0.5 * abs(high - low), 0.5 * (low + high)
        if not self._exhausted():
            for fraction in _EARLIER:
                truncation = max(truncation, abs(middle - self.shortened(fraction).middle(name, loss_tolerance_nats)))
        return Bracket(low, high, truncation, self.probe_standard_error(name, loss_tolerance_nats, middle))

    def probe_standard_error(self, name: str, loss_tolerance_nats: float, limit: float) -> float:
        """Return the standard error of a limit over random probes, known from the spectral measure of even one.

        The quadratic form of a unit Rademacher probe with f(H) has variance at most 2 Var_mu(f) / dim, less what lies
        on the diagonal of f(H); a normalised Gaussian probe has that variance to order 1 / dim. A limit solves
        s = F(s), hence moves by the error of F over 1 - F'(s).

        Source: Avron and Toledo (2011), "Randomized algorithms for estimating the trace of an implicit symmetric
            positive semi-definite matrix", Journal of the ACM 58, for the variance.
        """
        mu, dim = treated(self.probe_measure(upper=False), self.curvature), self.order.dim
        nu = self._direction(False) if name != "gaussian_width" else None

        def fraction(count: int) -> float:
            radius = self.order.radius(count)
            if nu is None:
                return gaussian_width_fraction(mu, radius, loss_tolerance_nats)
            return statistical_dimension_fraction(mu, nu, radius, loss_tolerance_nats)

        at, step = round(limit * dim), max(1, round(_SLOPE_STEP * dim))
        before, after = max(0, at - step), min(dim, at + step)
        slope = min(0.0, (fraction(after) - fraction(before)) * dim / (after - before))
        radius = self.order.radius(at)
        if radius == 0.0:
            return 0.0
        theta = radius**2 / (2 * loss_tolerance_nats) if nu is None else optimal_theta(nu, radius, loss_tolerance_nats)
        mean, square = (mu.integrate(lambda nodes, p=p: (1.0 + theta * nodes) ** -p)[0] for p in (1, 2))  # type: ignore[misc]
        return math.sqrt(2.0 * max(0.0, square - mean**2) / (dim * len(self.probes))) / (1.0 - slope)

    def probe_measure(self, *, upper: bool = False) -> SpectralMeasure:
        """Return the spectral measure of the probes by one kind of rule."""
        return SpectralMeasure(tuple(rule(run, upper=upper) for run in self.probes))

    def _direction(self, upper: bool) -> Quadrature:
        if self.removed is None:  # every weight is zero, or none has been run yet: as if nothing were curved
            return Quadrature(self.order.squared_radii[:1] * 0.0, self.order.squared_radii[:1] * 0.0 + 1.0)
        return treated(SpectralMeasure((rule(self.removed, upper=upper),), sampled=False), self.curvature).pooled()

    def _exhausted(self) -> bool:
        runs = [*self.probes, *([] if self.removed is None else [self.removed])]
        return all(run.status == "breakdown" for run in runs)


@lru_cache(maxsize=256)
def rule(run: "Tridiagonal", *, upper: bool) -> Quadrature:
    """Return the rule of one end of the bracket.

    After a breakdown both are the exact one but for the residual that was taken for rounding: where it hides
    eigenvalues that matter, both rules still tell by how much.

    Cost: a tridiagonal eigenproblem, O(k^3); remembered, because both limits ask for the same ones.
    """
    if upper:
        return radau_quadrature(run.diagonal, run.off_diagonal, run.residual_norm)
    gauss = gauss_quadrature(run.diagonal, run.off_diagonal)
    if gauss.nodes[0] >= -_ROUNDING * gauss.nodes[-1]:
        return gauss
    return averaged_quadrature(run.diagonal, run.off_diagonal, run.residual_norm)


@lru_cache(maxsize=256)
def shortened(run: "Tridiagonal", fraction: float) -> "Tridiagonal":
    """Return a run as it stood after a fraction of its steps, at least one."""
    k = max(1, round(fraction * run.num_lanczos_steps))
    if k >= run.num_lanczos_steps:
        return run
    return replace(
        run,
        diagonal=run.diagonal[:k],
        off_diagonal=run.off_diagonal[: k - 1],
        residual_norm=float(run.off_diagonal[k - 1]),
        status="complete",
    )
