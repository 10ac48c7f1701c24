"""The published recipe on one network, for the cell `faithful_limit` and for `espalier limit --faithful`."""

from collections.abc import Callable
from dataclasses import dataclass

from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import silent
from suite.curvature.probes import ProbeRequest
from suite.curvature.rows import SampledRows, sample_row_norms
from suite.curvature.slq import ProbeResult, run_probe, spectral_measure
from suite.limits.faithful import (
    NUM_LANCZOS_STEPS,
    NUM_ROWS,
    FaithfulLimit,
    faithful_limit,
    flat_rows,
    gridded_density,
)
from suite.limits.removal import MagnitudeOrder
from suite.limits.tolerance import BATCH_SIZE, SCALES
from suite.network import prunable_weights
from suite.networks.loaded import Network


@dataclass(frozen=True, eq=False)
class PublishedRecipe:
    """What the published program computes, at three loss tolerances.

    Attributes:
        limits: tolerance factor -> limit.
        result: of the one probe.
        rows: one per magnitude percentile; None without a convolution, whose networks are not looked at.
        num_flat_rows: rows that are declared zero eigenvalues; 0 without rows.
    """

    limits: dict[float, FaithfulLimit]
    result: ProbeResult
    rows: SampledRows | None
    num_flat_rows: int


def published_recipe(
    network: Network,
    operator: SymmetricOperator,
    loss_tolerance_nats: float,
    seed: int,
    num_lanczos_steps: int = NUM_LANCZOS_STEPS,
    progress: Callable[[float, str], None] = silent,
) -> PublishedRecipe:
    """Run one probe and, for a network with convolutions, a hundred rows; tabulate and read off the limit.

    Raises:
        ValueError: a product was not finite, or loss_tolerance_nats is not positive.

    Cost: num_lanczos_steps products, and 100 for the rows.
    """
    steps = min(num_lanczos_steps, operator.dim)
    result = run_probe(operator, ProbeRequest(seed, 0, "rademacher", steps))
    density = gridded_density(spectral_measure([result]).quadratures[0])
    progress(0.5, "rows of the Hessian")
    rows = _rows(network, operator, seed)
    num_flat_rows = flat_rows(rows.norms.l1_norms, BATCH_SIZE) if rows else 0
    order, lengths = MagnitudeOrder.of(network.weights()), _sum_of_lengths(network)
    limits = {
        factor: faithful_limit(density, order, factor * loss_tolerance_nats, lengths, num_flat_rows=num_flat_rows)
        for factor in SCALES
    }
    return PublishedRecipe(limits, result, rows, num_flat_rows)


def _rows(network: Network, operator: SymmetricOperator, seed: int) -> SampledRows | None:
    if not any(weight.ndim > 2 for weight in prunable_weights(network.model).values()):
        return None
    weights = network.weights()
    return sample_row_norms(operator, weights, seed, num_percentiles=min(NUM_ROWS, len(weights)))


def _sum_of_lengths(network: Network) -> float:
    return sum(float(weight.detach().double().norm()) for weight in prunable_weights(network.model).values())
