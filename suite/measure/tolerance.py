"""Limits to a tolerance: the search of suite.limits.subset_limits on a network that can be loaded, watched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.curvature.growing_runs import kept_runs
from suite.curvature.probes import ProbeRequest, RemovedWeightsRequest
from suite.curvature.slq import ProbeMap, ProbeResult
from suite.errors import UserError
from suite.limits.adaptive import Target
from suite.limits.curvature_treatment import Curvature
from suite.limits.error_budget import ErrorBudget
from suite.limits.predict import Prediction
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import TolerantLimits, limits_to_tolerance
from suite.measure.effort import Effort
from suite.measure.watch import Progress, WatchedMap
from suite.networks.loaded import Network
from suite.networks.sources import NetworkSource


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found, and from what.

    Attributes:
        limits: both, with their errors.
        probes: the last runs from random probes, by growing index; none where the dense Hessian took over.
        removed: the run from removed weights that the limits come from; None where there was none.
        num_restarts: runs begun again after a worker was lost.
        num_reissued: second copies of slow runs.
        seconds: that all runs took, each by the clock of its worker.
    """

    limits: TolerantLimits
    probes: list[ProbeResult]
    removed: ProbeResult | None
    num_restarts: int
    num_reissued: int
    seconds: float


def search_to_tolerance(
    source: NetworkSource,
    network: Network,
    target: Target,
    probe_map: ProbeMap,
    progress: Progress,
    checkpoint: Path | None = None,
) -> Found:
    """Compute both limits to a tolerance; see limits_to_tolerance.

    Args:
        source: what each worker builds its operator from, over more and more of the examples; has a fixed Hessian.
        network: the same, loaded here.
        target: what is computed, and how well.
        probe_map: inline_map, or one that keeps its runs: growing_inline_map, or Ray actors.
        progress: called with a fraction and how it stands: after each check, and now and then in between.
        checkpoint: where runs are saved, for a map that can be told; None: where it says itself, if anywhere.

    Raises:
        UserError: a product is not finite.
        FileRefused: the map's folder holds runs of another network. OSError: it cannot be written.
    """
    order = MagnitudeOrder.of(network.weights())
    num_examples = len(network.splits["train"].targets)

    def source_of(size: int) -> NetworkSource:
        return source.with_examples(None if size == num_examples else size, target.seed)

    with kept_runs(probe_map, checkpoint) as inner:
        watched = WatchedMap(inner, progress)
        try:
            limits = limits_to_tolerance(source_of, num_examples, order, target, watched, watched.report)
        except ValueError as error:
            raise UserError(str(error)) from error
    return _found(limits, watched)


def _found(limits: TolerantLimits, watched: WatchedMap) -> Found:
    last = list(watched.latest.values())
    probes = [each for each in last if isinstance(each.request, ProbeRequest)] if limits.method == "lanczos" else []
    removed = [
        each
        for each in last
        if isinstance(each.request, RemovedWeightsRequest) and each.request.num_removed == limits.num_removed
    ]
    return Found(
        limits,
        sorted(probes, key=lambda result: result.index),
        removed[-1] if removed else None,
        watched.num_restarts,
        watched.num_reissued,
        watched.run_seconds,
    )


def target_of(tolerance: float, loss_tolerance_nats: float, curvature: Curvature, effort: Effort) -> Target:
    """Return what a search is after; of the effort, seed and distribution alone count.

    Raises:
        UserError: the tolerance is out of range.
    """
    try:
        return Target(tolerance, loss_tolerance_nats, curvature, effort.seed, effort.distribution)
    except ValueError as error:
        raise UserError(str(error)) from error


def loss_tolerance_of(network: Network, given: float | None) -> float:
    """Return the loss tolerance that was given, or the standard deviation of mini-batch losses over the training split.

    Raises:
        UserError: the one given is not positive; there are too few batches, or all have the same loss, or one has a
            loss that is not finite.
    """
    if given is not None and not 0.0 < given < math.inf:
        raise UserError(f"loss_tolerance_nats={given} is no tolerance. Expected: a positive number of nats.")
    epsilon = network.loss_tolerance_nats() if given is None else given
    if not epsilon > 0:
        raise UserError(
            "All mini-batch losses are equal, so their spread is no tolerance. "
            "Give --loss-tolerance NATS, or in a study loss_tolerance_nats under [options.limit]."
        )
    return epsilon


def search_as_json(search: Found, target: Target) -> dict[str, Any]:
    """Return how a search ended: both limits with their budgets, its effort, and all checks on the way."""
    limits, last = search.limits, search.limits.checks[-1]
    return {
        **{name: limit_as_json(limits.predictions, name, budget) for name, budget in limits.budgets.items()},
        "loss_tolerance_nats": target.loss_tolerance_nats,
        "num_prunable_weights": limits.dim,
        "num_matvecs": last.num_matvecs,
        "curvature": target.curvature,
        "num_probes": last.num_probes,
        "num_lanczos_steps": last.num_lanczos_steps,
        "seed": target.seed,
        "restarts": search.num_restarts,
        "reissued": search.num_reissued,
        "tolerance": target.tolerance,
        "converged": limits.converged,
        "method": limits.method,
        "num_examples": last.num_examples,
        "gradient_equivalents": last.gradient_equivalents,
        "checks": [check.as_json() for check in limits.checks],
    }


def limit_as_json(predictions: Sequence[Prediction], limit: str, budget: ErrorBudget) -> dict[str, Any]:
    """Return one predicted limit at three tolerances, with its errors; None for what is not known.

    lower and upper lie further apart than the prediction's own by the error of the computation, where it is known.
    """
    at = {each.tolerance_factor: each.estimate for each in predictions if each.limit == limit}
    error = budget.total if math.isfinite(budget.total) else 0.0
    values = {
        "sparsity_limit": at[1.0].sparsity_limit,
        "lower": max(0.0, at[1.0].lower - error),
        "upper": min(1.0, at[1.0].upper + error),
        "probe_standard_error": at[1.0].probe_standard_error,
        "at_half_tolerance": at[0.5].sparsity_limit,
        "at_double_tolerance": at[2.0].sparsity_limit,
    }
    known = {name: None if math.isnan(value) else value for name, value in values.items()}
    return {**known, "budget": budget.as_json()}


def check_operands(source: NetworkSource, tolerance: float) -> None:
    """Refuse a tolerance where products round more than Lanczos steps and probes can make good.

    Raises:
        UserError: operands are rounded to TF32 or bfloat16.
    """
    if source.operands != "full":
        raise UserError(
            f"tolerance={tolerance} is not known to be reached with {source.operands} products: their rounding alone "
            "has moved a limit by 0.27. Expected: precision float32 or float64, or a fixed effort (--probes, --steps)."
        )
