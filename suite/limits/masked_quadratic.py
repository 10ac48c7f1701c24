"""The predictor of one actual mask: the least loss of the quadratic model with the removed weights forced to zero.

With w_P the removed weights, K the kept coordinates and d a damping, the kept weights answer the removal with the step
that solves (H_KK + d I) y = H_KP w_P, and the loss then is (w_P'(H_PP - H_PK (H_KK + d I)^+ H_KP) w_P) / 2. Nothing in
it is random: no subspace, no probe. H is used as it is: its products give neither its positive part (curvature
"positive", the dense oracle's) nor |H| ("abs"). Any step's loss on H is at most that on the positive part, and that at
most the one on |H|; without negative eigenvalues the three are one. With some on the kept coordinates the model has no
least loss: conjugate gradients notice it, after steps of many times the weights' length, which are not returned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from suite.curvature.operators import SymmetricOperator
from suite.curvature.reductions import dot, norm
from suite.limits.estimate import check_loss_tolerance
from suite.limits.removal import MagnitudeOrder

Status = Literal["converged", "max_matvecs", "negative_curvature", "nonfinite"]

_DAMPING_FRACTION = 0.01  # of the tolerance: what a step of the kept weights as long as all weights may cost
_FIRST_STRIDE = 4  # in units of the resolution; the published limits of one network differ by 0.003 to 0.03


@dataclass(frozen=True, eq=False)
class MaskedQuadratic:
    """The loss of the quadratic model at one mask.

    Attributes:
        num_removed: count of removed weights.
        loss_nats: rise of the loss, damping included, at the step of smallest residual; computed there by a product
            of its own, so it is the model's whatever the status. nan when a product was not finite.
        num_matvecs: products paid for.
        status: "converged": the residual is as small as asked for. "max_matvecs": ended before; the least loss is
            lower. "negative_curvature": ended before, because a direction bends down; there is no least loss.
            "nonfinite": a product held NaN or infinity.
        residual: length of the gradient over the kept weights, as a fraction of its length before they moved.
        displacement: shape (dim,), float64: minus the removed weights, and the step of the kept ones. None where a
            limit lists its solves.
    """

    num_removed: int
    loss_nats: float
    num_matvecs: int
    status: Status
    residual: float
    displacement: Tensor | None


@dataclass(frozen=True, eq=False)
class MaskedQuadraticLimit:
    """The largest sparsity whose mask costs no more than the tolerance.

    Attributes:
        sparsity_limit: num_removed / dim.
        lower, upper: the largest sparsity found feasible, and the smallest found infeasible, 1 when none was.
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


def masked_quadratic_loss(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    num_removed: int,
    *,
    damping: float = 0.0,
    max_residual: float = 1e-3,
    max_matvecs: int = 200,
    start: Tensor | None = None,
) -> MaskedQuadratic:
    """Minimise the quadratic model over the kept weights by conjugate gradients.

    Vectors and sums are float64; products are as exact as the operator's type.

    Args:
        operator: the Hessian over the prunable weights.
        order: the prunable weights, in the operator's coordinates.
        num_removed: how many go, in [0, dim].
        damping: d >= 0, in nats per squared weight: moving the kept weights by y costs d |y|^2 / 2 more.
        max_residual: ends when the residual is no larger; see MaskedQuadratic.
        max_matvecs: at least 3: up to two products open a solve, and one closes it.
        start: displacement of a neighbouring mask whose solve converged, shape (dim,); its best multiple is used.

    Raises:
        ValueError: an argument is out of range.

    Cost: one product per step, and two or, with a start, three more; none when all removed weights are zero. Measured
        on a trained MLP of 6,464 weights: 32 to 36 products until negative curvature; the loss 12 to 21 % below that
        on the positive part, which is 0.001 in sparsity or less.
    Source: Hestenes and Stiefel (1952), "Methods of conjugate gradients for solving linear systems".
    Differs: keeps the step of smallest residual, because steps grow without bound as negative curvature comes near.
    """
    _check(operator, order, damping, max_residual, max_matvecs)
    problem = _MaskedProblem(operator, order, num_removed, damping)
    if order.radius(num_removed) == 0.0:
        return MaskedQuadratic(num_removed, 0.0, 0, "converged", 0.0, problem.removal)
    step = torch.zeros_like(problem.removal) if start is None else start.to(problem.removal) * problem.kept
    return problem.result(*_conjugate_gradients(problem, step, max_residual, max_matvecs))


def masked_quadratic_limit(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    start_count: int,
    *,
    resolution: float = 1e-3,
    max_residual: float = 1e-3,
    max_matvecs_per_solve: int = 200,
) -> MaskedQuadraticLimit:
    """Find the largest count of removed weights whose mask costs no more than the tolerance.

    Brackets it from start_count in doubling strides, then interpolates the logarithm of the loss. A solve starts from
    the mask before if that one converged; steps that met negative curvature would be driven further down it. Without
    negative curvature the loss does not fall with the count, but for what the damping adds: it is so small that a step
    of the kept weights as long as all weights costs a hundredth of the tolerance.

    Args:
        operator: the Hessian over the prunable weights.
        order: the prunable weights, in the operator's coordinates.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        start_count: a guess, such as num_removed of the statistical_dimension limit.
        resolution: the search ends when the bracket is no wider, in sparsity; 0: to the single weight.
        max_residual: of each solve.
        max_matvecs_per_solve: at least 3.

    Raises:
        ValueError: an argument is out of range, or a product was not finite.

    Cost: the solves: about 5 from a guess within 0.01 of the limit.
    """
    check_loss_tolerance(loss_tolerance_nats)
    if not 0.0 <= resolution <= 1.0:
        raise ValueError(f"resolution={resolution} is out of range. Expected: a step in sparsity in [0, 1].")
    squared_length = float(order.squared_radii[-1])
    damping = _DAMPING_FRACTION * 2.0 * loss_tolerance_nats / squared_length if squared_length > 0.0 else 0.0
    solves: list[MaskedQuadratic] = []

    def excess(count: int) -> float:
        """Return log(loss / tolerance): not positive where the mask is feasible."""
        start = solves[-1].displacement if solves and solves[-1].status == "converged" else None
        solve = masked_quadratic_loss(
            operator,
            order,
            count,
            damping=damping,
            max_residual=max_residual,
            max_matvecs=max_matvecs_per_solve,
            start=start,
        )
        if solve.status == "nonfinite":
            raise ValueError(f'status "nonfinite": a product was not finite with {count} weights removed. Diverged?')
        solves[-1:] = [*(replace(last, displacement=None) for last in solves[-1:]), solve]
        return math.log(solve.loss_nats / loss_tolerance_nats) if solve.loss_nats > 0.0 else -math.inf

    width = max(1, math.floor(resolution * order.dim))
    below, above = _bracket(excess, start_count, order.num_zero_weights, order.dim, width)
    return MaskedQuadraticLimit(
        sparsity_limit=below / order.dim,
        lower=below / order.dim,
        upper=min(1.0, above / order.dim),
        num_removed=below,
        loss_tolerance_nats=loss_tolerance_nats,
        damping=damping,
        solves=tuple(replace(solve, displacement=None) for solve in solves),
    )


class _MaskedProblem:
    """The quadratic model over the kept weights; vectors are full, and zero on the removed coordinates."""

    def __init__(self, operator: SymmetricOperator, order: MagnitudeOrder, num_removed: int, damping: float) -> None:
        self.operator, self.num_removed, self.damping = operator, num_removed, damping
        self.removal = torch.from_numpy(-order.removed(num_removed)).to(operator.device)
        self.kept = torch.ones_like(self.removal)
        self.kept[torch.from_numpy(order.order[:num_removed]).to(operator.device)] = 0.0
        self.num_matvecs = 0
        self.right_side_norm = 0.0

    def products(self, *vectors: Tensor) -> list[Tensor]:
        """Return H v for each vector, as float64."""
        self.num_matvecs += len(vectors)
        columns = torch.stack(vectors, dim=1).to(self.operator.dtype)
        return list(self.operator.matmat(columns).double().unbind(dim=1))

    def kept_product(self, step: Tensor, product: Tensor) -> Tensor:
        """Return (H_KK + d I) y from H y."""
        return self.kept * product + self.damping * step

    def result(self, step: Tensor, status: Status) -> MaskedQuadratic:
        """Evaluate the loss and its gradient at a step by a product of their own."""
        displacement = self.removal + step
        (product,) = self.products(displacement)
        loss = 0.5 * dot(displacement, product) + 0.5 * self.damping * dot(step, step)
        gradient = norm(self.kept_product(step, product))
        residual = gradient / self.right_side_norm if gradient > 0.0 else 0.0
        if status == "nonfinite" or not math.isfinite(loss):
            loss, residual, status = math.nan, math.nan, "nonfinite"
        return MaskedQuadratic(self.num_removed, loss, self.num_matvecs, status, residual, displacement)


def _conjugate_gradients(
    problem: _MaskedProblem, step: Tensor, max_residual: float, max_matvecs: int
) -> tuple[Tensor, Status]:
    """Return the step of smallest residual that was met, and why no better one was looked for."""
    has_start = bool(step.any())
    opening = problem.products(problem.removal, step) if has_start else problem.products(problem.removal)
    residual = -problem.kept * opening[0]
    problem.right_side_norm = norm(residual)
    if has_start:
        product = problem.kept_product(step, opening[1])
        slope, curvature = dot(residual, step), dot(step, product)
        multiple = slope / curvature if curvature > 0.0 else 0.0
        step, residual = multiple * step, residual - multiple * product
    direction, squared_norm = residual, dot(residual, residual)
    best, smallest = step, squared_norm
    while not math.sqrt(squared_norm) <= max_residual * problem.right_side_norm:
        if problem.num_matvecs + 1 >= max_matvecs:
            return best, "max_matvecs"
        product = problem.kept_product(direction, *problem.products(direction))
        curvature = dot(direction, product)
        if not math.isfinite(curvature):
            return best, "nonfinite"
        if curvature <= 0.0:
            return best, "negative_curvature"
        length = squared_norm / curvature
        step, residual = step + length * direction, residual - length * product
        previous, squared_norm = squared_norm, dot(residual, residual)
        direction = residual + (squared_norm / previous) * direction
        if squared_norm < smallest:
            best, smallest = step, squared_norm
    return step, "converged"


def _bracket(excess: Callable[[int], float], start: int, lowest: int, highest: int, width: int) -> tuple[int, int]:
    """Return a count with excess <= 0 and one above it with excess > 0 (or highest + 1), at most width apart.

    lowest is known to be feasible. Every third count between the ends of the bracket is its middle.
    """
    below, above, stride, num_between = lowest, highest + 1, _FIRST_STRIDE * width, 0
    values = {lowest: -math.inf, highest + 1: math.inf}
    count = min(max(start, lowest + 1), highest)
    while below < highest and (above > highest or above - below > width):
        values[count] = excess(count)
        below, above = (count, above) if values[count] <= 0.0 else (below, count)
        if above > highest or (below == lowest and above - lowest > stride):
            count = min(below + stride, highest) if above > highest else above - stride
            stride *= 2
        else:
            num_between += 1
            fraction = 0.5 if num_between % 3 == 0 else _zero_crossing(values[below], values[above])
            nearby = min(max(below + fraction * (above - below), below + width), above - width)
            count = min(max(round(nearby), below + 1), above - 1)
    return below, above


def _zero_crossing(first: float, second: float) -> float:
    """Return where the line from first <= 0 to second > 0 crosses zero, as a fraction of the way."""
    return first / (first - second) if math.isfinite(first) and math.isfinite(second) else 0.5


def _check(
    operator: SymmetricOperator, order: MagnitudeOrder, damping: float, max_residual: float, max_matvecs: int
) -> None:
    if operator.dim != order.dim:
        raise ValueError(f"An operator of dimension {operator.dim} for {order.dim} weights. Expected: the same number.")
    if not 0.0 <= damping < math.inf:
        raise ValueError(f"damping={damping} is out of range. Expected: nats per squared weight, >= 0.")
    if not 0.0 < max_residual < 1.0:
        raise ValueError(f"max_residual={max_residual} is out of range. Expected: a fraction above 0 and below 1.")
    if max_matvecs < 3:
        raise ValueError(f"max_matvecs={max_matvecs} is too small. Expected: at least 3.")
