"""The predictor of the actual masks: the largest sparsity whose mask costs no more than the tolerance.

What one mask costs is the least loss of the quadratic model over the kept weights, see suite.limits.masked_loss, also
for why the matrix has to be positive semidefinite.
"""

import math
from dataclasses import dataclass, replace

from suite.curvature.operators import SymmetricOperator
from suite.limits.count_search import bracket_count
from suite.limits.estimate import check_loss_tolerance
from suite.limits.masked_loss import MaskedQuadratic, masked_quadratic_loss
from suite.limits.removal import MagnitudeOrder

_FEASIBLE = 0.99  # of the tolerance: below one, for what rounding adds to the loss on the way
_DAMPING_FRACTION = 0.01  # of the tolerance: what a step of the kept weights as long as all weights may cost


@dataclass(frozen=True, eq=False)
class MaskedQuadraticLimit:
    """The largest sparsity whose mask costs no more than the tolerance.

    Attributes:
        sparsity_limit: num_removed / dim.
        lower, upper: the largest sparsity found feasible, and the smallest that a converged solve found infeasible, 1
            when none did: a solve cut short proves nothing above.
        num_removed: the count the limit stands for.
        loss_tolerance_nats: how much the mean loss may rise.
        damping: d, in nats per squared weight.
        solves: in the order they were made.
    """

    sparsity_limit: float
    lower: float
    upper: float
    num_removed: int
    loss_tolerance_nats: float
    damping: float
    solves: tuple[MaskedQuadratic, ...]

    @property
    def num_matvecs(self) -> int:
        """Products of all solves."""
        return sum(solve.num_matvecs for solve in self.solves)


def masked_quadratic_limit(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    start_count: int,
    *,
    resolution: float = 1e-3,
    max_residual: float = 1e-3,
    max_loss_error: float = 0.0,
    max_matvecs_per_solve: int = 200,
) -> MaskedQuadraticLimit:
    """Find the largest count of removed weights whose mask costs no more than the tolerance.

    Brackets it from start_count in doubling strides, then interpolates the logarithm of the loss. A solve starts from
    the mask before if that one converged or was feasible, and ends as soon as its own mask is feasible. The loss does
    not fall with the count, but for what the damping adds: it is so small that a step of the kept weights as long as
    all weights costs a hundredth of the tolerance.

    Args:
        operator: the curvature over the prunable weights, positive semidefinite; see suite.limits.masked_loss.
        order: the prunable weights, in the operator's coordinates.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        start_count: a guess, such as num_removed of the statistical_dimension limit.
        resolution: the search ends when the bracket is no wider, in sparsity; 0: to the single weight.
        max_residual: of each solve.
        max_loss_error: the same.
        max_matvecs_per_solve: at least 3.

    Raises:
        ValueError: an argument is out of range, or a product was not finite.

    Cost: the solves: about 5 from a guess within 0.01 of the limit.
    """
    check_loss_tolerance(loss_tolerance_nats)
    if not 0.0 <= resolution <= 1.0:
        raise ValueError(f"resolution={resolution} is out of range. Expected: a step in sparsity in [0, 1].")
    damping = damping_of_kept_weights(order, loss_tolerance_nats)
    solves: list[MaskedQuadratic] = []

    def excess(count: int) -> float:
        """Return log(loss / tolerance): not positive where the mask is feasible."""
        start = solves[-1].displacement if solves and solves[-1].status in ("converged", "feasible") else None
        solve = masked_quadratic_loss(
            operator,
            order,
            count,
            damping=damping,
            max_residual=max_residual,
            max_loss_error=max_loss_error,
            feasible_loss_nats=_FEASIBLE * loss_tolerance_nats,
            max_matvecs=max_matvecs_per_solve,
            start=start,
        )
        if solve.status == "nonfinite":
            raise ValueError(f'status "nonfinite": a product was not finite with {count} weights removed. Diverged?')
        solves[-1:] = [*(replace(last, displacement=None) for last in solves[-1:]), solve]
        return math.log(solve.loss_nats / loss_tolerance_nats) if solve.loss_nats > 0.0 else -math.inf

    width = max(1, math.floor(resolution * order.dim))
    below, _ = bracket_count(excess, start_count, order.num_zero_weights, order.dim, width)
    infeasible = [each.num_removed for each in solves if each.num_removed > below and each.status == "converged"]
    return MaskedQuadraticLimit(
        sparsity_limit=below / order.dim,
        lower=below / order.dim,
        upper=min(infeasible, default=order.dim) / order.dim,
        num_removed=below,
        loss_tolerance_nats=loss_tolerance_nats,
        damping=damping,
        solves=tuple(replace(solve, displacement=None) for solve in solves),
    )


def damping_of_kept_weights(order: MagnitudeOrder, loss_tolerance_nats: float) -> float:
    """Return d in nats per squared weight: a step as long as all weights costs a hundredth of the tolerance."""
    squared_length = float(order.squared_radii[-1])
    return _DAMPING_FRACTION * 2.0 * loss_tolerance_nats / squared_length if squared_length > 0.0 else 0.0
