"""The limit of the actual masks at three loss tolerances, for the cell `masked_limit` and `espalier limit --masked`."""

from collections.abc import Callable, Mapping

from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import silent
from suite.limits.masked_quadratic import MaskedQuadraticLimit, masked_quadratic_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.tolerance import SCALES
from suite.measure.watch import WatchedOperator, part_of

RESOLUTION = 1e-3  # of the search, in sparsity
MAX_MATVECS_PER_SOLVE = 1000
# A loss off by so much moves the limit by 0.0005 or less: it grew fourfold over 0.07 of sparsity where measured.
_MAX_LOSS_ERROR = 3e-3
_PRODUCTS = 1000  # of one search; a guess, for progress alone
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
        progress: called after each product with a fraction and a text.

    Raises:
        ValueError: a product was not finite, or an argument is out of range.

    Cost: see masked_quadratic_limit, three times: 400 to 3,000 products where measured, on up to 4,464 weights.
    """
    limits = {}
    for turn, factor in enumerate(SCALES):
        part = part_of(progress, turn / len(SCALES), (turn + 0.9) / len(SCALES))  # nobody knows how many there will be
        watched = WatchedOperator(operator, f"masks at {factor:g} times the loss tolerance", _PRODUCTS, part)
        limits[factor] = masked_quadratic_limit(
            watched,
            order,
            factor * loss_tolerance_nats,
            guesses[factor],
            resolution=resolution,
            max_residual=_MAX_RESIDUAL,
            max_loss_error=_MAX_LOSS_ERROR,
            max_matvecs_per_solve=max_matvecs_per_solve,
        )
    return limits
