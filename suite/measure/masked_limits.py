"""The limit of the actual masks at three loss tolerances, for the cell `masked_limit` and `espalier limit --masked`."""

from collections.abc import Callable, Mapping

from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import silent
from suite.limits.masked_quadratic import MaskedQuadraticLimit, masked_quadratic_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.tolerance import SCALES

RESOLUTION = 1e-3  # of the search, in sparsity
MAX_MATVECS_PER_SOLVE = 1000
# A loss off by so much moves the limit by 0.0005 or less: it grew fourfold over 0.07 of sparsity where measured.
_MAX_LOSS_ERROR = 3e-3
_MAX_RESIDUAL = 1e-5  # met only where the loss cannot fall any more, in single precision


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
        operator: a positive semidefinite matrix over the prunable weights, see suite.curvature.convexified.
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
            max_residual=_MAX_RESIDUAL,
            max_loss_error=_MAX_LOSS_ERROR,
            max_matvecs_per_solve=max_matvecs_per_solve,
        )
    return limits
