"""The limit of the actual masks from all eigenvalues and eigenvectors, by direct solves: the oracle. Small networks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suite.limits.count_search import bracket_count
from suite.limits.estimate import LimitEstimate, check_loss_tolerance
from suite.limits.masked_quadratic import damping_of_kept_weights
from suite.limits.predict import Prediction
from suite.limits.removal import MagnitudeOrder


def exact_masked_limit(
    eigenvalues: Tensor, eigenvectors: Tensor, order: MagnitudeOrder, loss_tolerance_nats: float, start_count: int
) -> LimitEstimate:
    """Find the largest count whose mask costs no more than the tolerance on the Hessian's positive part.

    The loss of a mask is that of suite.limits.masked_loss, with the same damping; its kept block is factorised.

    Args:
        eigenvalues: shape (dim,), of the Hessian over the prunable weights; negative ones count as zero.
        eigenvectors: shape (dim, dim), orthonormal columns in the order of the eigenvalues.
        order: the prunable weights.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        start_count: the guess that the search starts at, such as num_removed of the statistical_dimension limit.

    Raises:
        ValueError: the tolerance is not positive.

    Cost: about 10 solves of 2 dim k^2 operations for k kept weights, 16 (dim k + k^2) bytes.
    """
    check_loss_tolerance(loss_tolerance_nats)
    damping, positive = damping_of_kept_weights(order, loss_tolerance_nats), eigenvalues.clamp(min=0.0)

    def excess(count: int) -> float:
        if order.radius(count) == 0.0:
            return -math.inf
        loss = _least_loss(positive, eigenvectors, order, count, damping)
        return math.log(loss / loss_tolerance_nats) if loss > 0.0 else -math.inf

    below, above = bracket_count(excess, start_count, order.num_zero_weights, order.dim, 1)
    return LimitEstimate(
        sparsity_limit=below / order.dim,
        lower=below / order.dim,
        upper=min(above, order.dim) / order.dim,
        probe_standard_error=0.0,
        num_removed=below,
        loss_tolerance_nats=loss_tolerance_nats,
        curvature="positive",
    )


def exact_masked_limits(
    eigenvalues: Tensor, eigenvectors: Tensor, order: MagnitudeOrder, predictions: Sequence[Prediction]
) -> dict[float, LimitEstimate]:
    """Search the limit at each tolerance factor, from the statistical_dimension limit there; see exact_masked_limit."""
    return {
        each.tolerance_factor: exact_masked_limit(
            eigenvalues, eigenvectors, order, each.estimate.loss_tolerance_nats, each.estimate.num_removed
        )
        for each in predictions
        if each.limit == "statistical_dimension"
    }


def _least_loss(
    eigenvalues: Tensor, eigenvectors: Tensor, order: MagnitudeOrder, num_removed: int, damping: float
) -> float:
    """Return (w_P'(H_PP - H_PK (H_KK + d I)^-1 H_KP) w_P) / 2 for H of these eigenpairs."""
    removed = torch.from_numpy(order.removed(num_removed)).to(eigenvectors)
    kept = torch.from_numpy(order.order[num_removed:].copy()).to(eigenvectors.device)
    components = eigenvectors.T @ removed
    own = float(components @ (eigenvalues * components))
    rows = eigenvectors[kept]
    coupling = rows @ (eigenvalues * components)
    block = (rows * eigenvalues) @ rows.T
    rounding = len(kept) * torch.finfo(block.dtype).eps * float(eigenvalues[-1])  # of what is zero to the factorisation
    block.diagonal().add_(max(damping, rounding))
    solution = torch.cholesky_solve(coupling.unsqueeze(1), torch.linalg.cholesky(block)).squeeze(1)
    return 0.5 * (own - float(coupling @ solution))
