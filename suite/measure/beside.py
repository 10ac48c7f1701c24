"""Limits computed beside the two predicted ones: the published recipe, and the quadratic limit of the actual masks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.operators import SymmetricOperator
from suite.errors import UserError
from suite.limits.adaptive import Target
from suite.limits.exact_masks import exact_masked_limits
from suite.limits.faithful import NUM_LANCZOS_STEPS
from suite.limits.masked_quadratic import MaskedQuadraticLimit, damping_of_kept_weights
from suite.limits.predict import Prediction
from suite.limits.removal import MagnitudeOrder
from suite.measure.masked_limits import masked_limits
from suite.measure.published_recipe import published_recipe
from suite.measure.watch import Progress, WatchedOperator, part_of
from suite.networks.loaded import Network

Beside = Literal["faithful", "masked"]
NAMES: dict[Beside, str] = {"faithful": "gaussian_width_faithful", "masked": "masked_quadratic"}
MAX_EXACT_DIM = Target.max_dense_dim  # where the dense Hessian may take over elsewhere; it costs fewer products as well


def limits_beside(
    operator: SymmetricOperator,
    network: Network,
    predictions: Sequence[Prediction],
    beside: Sequence[Beside],
    *,
    loss_tolerance_nats: float,
    seed: int,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Return further limits of the same network as JSON-able values, by their names in NAMES.

    Args:
        operator: the Hessian over the prunable weights.
        network: the same in memory.
        predictions: of the two limits; those of the statistical dimension are where the search over masks begins.
        beside: which ones.
        loss_tolerance_nats: epsilon.
        seed: of the recipe's probe and rows.
        progress: called with a fraction and a text.

    Raises:
        UserError: a product was not finite.

    Cost: see published_recipe and masked_limits.
    """
    found = {}
    for turn, name in enumerate(beside):
        part = part_of(progress, turn / len(beside), (turn + 1) / len(beside))
        try:
            if name == "faithful":
                found[NAMES[name]] = _faithful(operator, network, loss_tolerance_nats, seed, part)
            else:
                found[NAMES[name]] = _masked(operator, network, predictions, loss_tolerance_nats, part)
        except ValueError as error:
            raise UserError(str(error)) from error
    return found


def _faithful(
    operator: SymmetricOperator, network: Network, loss_tolerance_nats: float, seed: int, progress: Progress
) -> dict[str, Any]:
    watched = WatchedOperator(operator, "the published recipe", NUM_LANCZOS_STEPS, progress)
    found = published_recipe(network, watched, loss_tolerance_nats, seed)
    return {
        **_at_tolerances({factor: limit.sparsity_limit for factor, limit in found.limits.items()}),
        "num_probes": 1,
        "num_lanczos_steps": found.result.tridiagonal.num_lanczos_steps,
        "status": found.result.tridiagonal.status,
        "num_flat_rows": found.num_flat_rows,
        "num_matvecs": watched.num_matvecs,
    }


def _masked(
    operator: SymmetricOperator,
    network: Network,
    predictions: Sequence[Prediction],
    loss_tolerance_nats: float,
    progress: Progress,
) -> dict[str, Any]:
    """Search the limit of the actual masks: exactly where the Hessian is small enough to be had whole."""
    if operator.dim <= MAX_EXACT_DIM:
        return _exactly_masked(network, predictions, loss_tolerance_nats, progress)
    guesses = {
        each.tolerance_factor: each.estimate.num_removed
        for each in predictions
        if each.limit == "statistical_dimension"
    }
    dtype = "float64" if operator.dtype == torch.float64 else "float32"
    curvature = network.convexified(
        dtype,
        progress=lambda done, total: progress(
            0.1 * done / total, f"preparing the masks' matrix: step {done} of {total}"
        ),
    )
    order = MagnitudeOrder.of(network.weights())
    found = masked_limits(curvature, order, loss_tolerance_nats, guesses, progress=part_of(progress, 0.1, 1.0))
    return {
        **_at_tolerances({factor: limit.sparsity_limit for factor, limit in found.items()}),
        "matrix": "convexified",
        "damping": found[1.0].damping,
        "num_matvecs": curvature.num_matvecs,
        **_solves(found[1.0]),
    }


def _exactly_masked(
    network: Network, predictions: Sequence[Prediction], loss_tolerance_nats: float, progress: Progress
) -> dict[str, Any]:
    operator, order = network.hessian("float64"), MagnitudeOrder.of(network.weights())
    hessian = dense_hessian(
        operator, progress=lambda done, total: progress(0.5 * done / total, f"column {done} of {total} of the Hessian")
    )
    progress(0.5, "eigendecomposition")
    parts = eigendecomposition(hessian)
    del hessian
    progress(0.8, "limits of the masks")
    found = exact_masked_limits(parts.eigenvalues, parts.eigenvectors, order, predictions)
    return {
        **_at_tolerances({factor: limit.sparsity_limit for factor, limit in found.items()}),
        "lower": found[1.0].lower,
        "upper": found[1.0].upper,
        "matrix": "positive part of the dense Hessian",
        "damping": damping_of_kept_weights(order, loss_tolerance_nats),
        "num_matvecs": operator.num_matvecs,
    }


def _at_tolerances(limits: Mapping[float, float]) -> dict[str, float | None]:
    return {
        "sparsity_limit": limits[1.0],
        "lower": None,
        "upper": None,
        "probe_standard_error": None,
        "at_half_tolerance": limits[0.5],
        "at_double_tolerance": limits[2.0],
    }


def _solves(limit: MaskedQuadraticLimit) -> dict[str, Any]:
    """Return the solves at the tolerance itself, each with its products: one per iteration, and two or three more."""
    solves = [
        {
            "num_removed": solve.num_removed,
            "loss_nats": solve.loss_nats,
            "num_matvecs": solve.num_matvecs,
            "residual": solve.residual,
            "status": solve.status,
        }
        for solve in limit.solves
    ]
    return {"statuses": dict(Counter(solve.status for solve in limit.solves)), "solves": solves}
