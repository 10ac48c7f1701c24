"""The limit of the actual masks at three loss tolerances, for the cell `masked_limit` and `espalier limit --masked`."""

from collections.abc import Callable, Mapping

from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import silent
from suite.limits.masked_quadratic import MaskedQuadraticLimit, masked_quadratic_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.tolerance import SCALES

RESOLUTION = 1e-3  # of the search, in sparsity
MAX_MATVECS_PER_SOLVE = 200


def masked_limits(
    operator: SymmetricOperator,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    guesses: Mapping[float, int],
    *,
    resolution: float = RESOLUTION,
    max_matvecs_per_solve: int = MAX_MATVECS_PER_SOLVE,
    progress: Callable[[float, str], None] = silent,
) -> dict[float, MaskedQuadraticLimit]:
    """Search the limit at each tolerance factor.

    Args:
        operator: the Hessian over the prunable weights.
        order: the prunable weights.
        loss_tolerance_nats: epsilon at factor 1.
        guesses: tolerance factor -> the count of removed weights that the search starts at.
        resolution: see masked_quadratic_limit.
        max_matvecs_per_solve: see masked_quadratic_limit.
        progress: called before each search with a fraction and a text.

    Raises:
        ValueError: a product was not finite, or an argument is out of range.

    Cost: see masked_quadratic_limit, three times.
    """
    limits = {}
    for turn, factor in enumerate(SCALES):
        progress(turn / len(SCALES), f"conjugate gradients at {factor:g} times the tolerance")
        limits[factor] = masked_quadratic_limit(
            operator,
            order,
            factor * loss_tolerance_nats,
            guesses[factor],
            resolution=resolution,
            max_matvecs_per_solve=max_matvecs_per_solve,
        )
    return limits
