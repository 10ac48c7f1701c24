"""The loss of one actual mask: the least loss of the quadratic model with the removed weights forced to zero.

With w_P the removed weights, K the kept coordinates and d a damping, the kept weights answer the removal with the step
that solves (H_KK + d I) y = H_KP w_P, and the loss then is (w_P'(H_PP - H_PK (H_KK + d I)^+ H_KP) w_P) / 2. Nothing in
it is random: no subspace, no probe.

H has to be positive semidefinite, or the model has no least loss: with directions on the kept coordinates that bend
down, what conjugate gradients return is an accident of where they stop (on a network of 3,000 weights trained without a
penalty the limit was 0.58 or 0.65 by where the search began, where 0.77 was right). So limits are computed on a
stand-in that bends down nowhere, suite.curvature.convexified.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from suite.curvature.operators import SymmetricOperator
from suite.curvature.reductions import dot, norm
from suite.limits.removal import MagnitudeOrder

Status = Literal["converged", "feasible", "max_matvecs", "negative_curvature", "nonfinite"]

_LATE_STEPS = 20  # over which a loss that hardly falls is taken for the least one


@dataclass(frozen=True, eq=False)
class MaskedQuadratic:
    """The loss of the quadratic model at one mask.

    Attributes:
        num_removed: count of removed weights.
        loss_nats: rise of the loss, damping included, at the last step, or after negative curvature at that of
            smallest residual; computed there by a product of its own, so it is the model's whatever the status. nan
            when a product was not finite.
        num_matvecs: products paid for.
        status: "converged": the residual, or the loss's own estimated error, is as small as asked for. "feasible":
            ended before, because the loss is as low as was asked for; the least loss is lower. "max_matvecs": ended
            before; the least loss is lower. "negative_curvature": ended before, because a direction bends down:
            by rounding, or there is no least loss.
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


def masked_quadratic_loss(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    num_removed: int,
    *,
    damping: float = 0.0,
    max_residual: float = 1e-3,
    max_loss_error: float = 0.0,
    feasible_loss_nats: float = -math.inf,
    max_matvecs: int = 200,
    start: Tensor | None = None,
) -> MaskedQuadratic:
    """Minimise the quadratic model over the kept weights by conjugate gradients.

    Vectors and sums are float64; products are as exact as the operator's type.

    Args:
        operator: the curvature over the prunable weights, positive semidefinite; see the module.
        order: the prunable weights, in the operator's coordinates.
        num_removed: how many go, in [0, dim].
        damping: d >= 0, in nats per squared weight: moving the kept weights by y costs d |y|^2 / 2 more.
        max_residual: ends when the residual is no larger; see MaskedQuadratic.
        max_loss_error: ends when the loss has fallen by no more than this fraction of itself in the last twenty steps,
            which estimates from below how far it still is from the least one; 0: by the residual alone.
        feasible_loss_nats: ends when the loss is no higher: that of any step is an upper bound of the least one.
        max_matvecs: at least 3: up to two products open a solve, and one closes it.
        start: displacement of a neighbouring mask whose solve converged, shape (dim,); its best multiple is used.

    Raises:
        ValueError: an argument is out of range.

    Cost: one product per step, and two or, with a start, three more; none when all removed weights are zero.
    Source: Hestenes and Stiefel (1952), "Methods of conjugate gradients for solving linear systems"; the estimate of
        the loss's error: Strakos and Tichy (2002), "On error estimation in the conjugate gradient method and why it
        works in finite precision computations", Electronic Transactions on Numerical Analysis 13.
    """
    _check(operator, order, damping, max_residual, max_loss_error, max_matvecs)
    problem = _MaskedProblem(operator, order, num_removed, damping)
    if order.radius(num_removed) == 0.0:
        return MaskedQuadratic(num_removed, 0.0, 0, "converged", 0.0, problem.removal)
    step = torch.zeros_like(problem.removal) if start is None else start.to(problem.removal) * problem.kept
    ends = _Ends(max_residual, max_loss_error, feasible_loss_nats, max_matvecs)
    return problem.result(*_conjugate_gradients(problem, step, ends))


class _Ends(NamedTuple):
    """When a solve ends; see masked_quadratic_loss."""

    max_residual: float
    max_loss_error: float
    feasible_loss_nats: float
    max_matvecs: int


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


def _conjugate_gradients(problem: _MaskedProblem, step: Tensor, ends: _Ends) -> tuple[Tensor, Status]:
    """Return the last step, or after negative curvature that of smallest residual, and why no better was looked for."""
    step, residual, loss = _opened(problem, step)
    direction, squared_norm = residual, dot(residual, residual)
    best, smallest = step, squared_norm
    falls: deque[float] = deque(maxlen=_LATE_STEPS)
    while not math.sqrt(squared_norm) <= ends.max_residual * problem.right_side_norm:
        if loss <= ends.feasible_loss_nats:
            return step, "feasible"
        if len(falls) == _LATE_STEPS and sum(falls) <= ends.max_loss_error * loss:
            break
        if problem.num_matvecs + 1 >= ends.max_matvecs:
            return step, "max_matvecs"
        product = problem.kept_product(direction, *problem.products(direction))
        curvature = dot(direction, product)
        if not math.isfinite(curvature):
            return best, "nonfinite"
        if curvature <= 0.0:
            return best, "negative_curvature"
        length = squared_norm / curvature
        step, residual = step + length * direction, residual - length * product
        falls.append(0.5 * length * squared_norm)
        loss -= falls[-1]
        previous, squared_norm = squared_norm, dot(residual, residual)
        direction = residual + (squared_norm / previous) * direction
        if squared_norm < smallest:
            best, smallest = step, squared_norm
    return step, "converged"


def _opened(problem: _MaskedProblem, step: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the best multiple of a start, the residual there, and the loss."""
    has_start = bool(step.any())
    opening = problem.products(problem.removal, step) if has_start else problem.products(problem.removal)
    residual, loss = -problem.kept * opening[0], 0.5 * dot(problem.removal, opening[0])
    problem.right_side_norm = norm(residual)
    if not has_start:
        return step, residual, loss
    product = problem.kept_product(step, opening[1])
    slope, curvature = dot(residual, step), dot(step, product)
    multiple = slope / curvature if curvature > 0.0 else 0.0
    return multiple * step, residual - multiple * product, loss - 0.5 * multiple * slope


def _check(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    damping: float,
    max_residual: float,
    max_loss_error: float,
    max_matvecs: int,
) -> None:
    if operator.dim != order.dim:
        raise ValueError(f"An operator of dimension {operator.dim} for {order.dim} weights. Expected: the same number.")
    if not 0.0 <= damping < math.inf:
        raise ValueError(f"damping={damping} is out of range. Expected: nats per squared weight, >= 0.")
    if not 0.0 < max_residual < 1.0:
        raise ValueError(f"max_residual={max_residual} is out of range. Expected: a fraction above 0 and below 1.")
    if not 0.0 <= max_loss_error < 1.0:
        raise ValueError(f"max_loss_error={max_loss_error} is out of range. Expected: a fraction from 0 and below 1.")
    if max_matvecs < 3:
        raise ValueError(f"max_matvecs={max_matvecs} is too small. Expected: at least 3.")
