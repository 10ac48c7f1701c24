"""Spectrum and limits of a user's own network, without a study: what `espalier spectrum` and `limit` compute."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.cells._context import silent
from suite.cells._network import Network, UserNetwork
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import Distribution, ProbeRequest
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import ProbeMap, ProbeResult, inline_map, slq, spectral_measure
from suite.errors import UserError
from suite.limits.curvature_treatment import Curvature
from suite.limits.predict import Prediction, lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Effort:
    """How much is computed: num_probes runs of num_lanczos_steps products, from a seed."""

    num_probes: int = 4
    num_lanczos_steps: int = 64
    seed: int = 0
    distribution: Distribution = "rademacher"


def measure_spectrum(
    source: UserNetwork, effort: Effort, probe_map: ProbeMap, progress: Progress
) -> tuple[Network, list[ProbeResult], SpectralMeasure]:
    """Run the probes on a user's network.

    Returns:
        The network as loaded here, the probes' tridiagonals, and the spectral measure they sample.

    Raises:
        UserError: model, weights and data do not fit, or a product is not finite. FileRefused: the data file.

    Cost: num_probes * num_lanczos_steps Hessian-vector products over the training split.
    """
    network = source.load()
    dim = len(network.weights())
    steps = min(effort.num_lanczos_steps, dim)
    requests = [ProbeRequest(effort.seed, index, effort.distribution, steps) for index in range(effort.num_probes)]
    _hessian(network, source.dtype)  # refuses what has no fixed Hessian before any worker starts
    results = slq(
        source, requests, map=probe_map, progress=lambda done, total: progress(done / total, f"probe {done} of {total}")
    )
    try:
        return network, results, spectral_measure(results)
    except ValueError as error:
        raise UserError(str(error)) from error


def measure_limits(
    source: UserNetwork,
    effort: Effort,
    *,
    loss_tolerance_nats: float | None = None,
    curvature: Curvature = "abs",
    probe_map: ProbeMap = inline_map,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Predict the sparsity limits of a user's network.

    Args:
        source: the network.
        effort: probes and steps; the runs from the removed weights take as many steps.
        loss_tolerance_nats: how much the mean loss may rise; None: the standard deviation of mini-batch losses.
        curvature: what negative eigenvalues count as.
        probe_map: inline, or Ray actors.
        progress: called with a fraction and a text.

    Returns:
        JSON-able: gaussian_width and statistical_dimension (each with sparsity_limit, lower, upper,
        probe_standard_error, and the limit at half and double the tolerance), loss_tolerance_nats,
        num_prunable_weights, num_matvecs, curvature, and the effort.

    Raises:
        UserError, FileRefused: see measure_spectrum.
    """
    tolerance = loss_tolerance_nats or source.load().loss_tolerance_nats()  # refused before any probe is paid for
    if not tolerance > 0:
        raise UserError(
            "All mini-batch losses are equal, so their spread is no tolerance. Give --loss-tolerance (nats)."
        )
    network, results, measure = measure_spectrum(
        source, effort, probe_map, lambda fraction, text: progress(0.8 * fraction, text)
    )
    order = MagnitudeOrder.of(network.weights())
    operator = _hessian(network, source.dtype)
    progress(0.8, "runs from the removed weights")
    steps = min(effort.num_lanczos_steps, order.dim)
    try:
        predictions = predict(measure, order, tolerance, lanczos_delta_measure(operator, order, steps), curvature)
    except ValueError as error:
        raise UserError(str(error)) from error
    num_probe_matvecs = sum(result.tridiagonal.num_lanczos_steps for result in results)
    return {
        **{name: _as_json(predictions, name) for name in ("gaussian_width", "statistical_dimension")},
        "loss_tolerance_nats": tolerance,
        "num_prunable_weights": order.dim,
        "num_matvecs": num_probe_matvecs + operator.num_matvecs,
        "curvature": curvature,
        "num_probes": effort.num_probes,
        "num_lanczos_steps": steps,
        "seed": effort.seed,
        "restarts": sum(result.restarts for result in results),
    }


def _hessian(network: Network, dtype: str) -> HessianOperator:
    try:
        return network.hessian(dtype)
    except ValueError as error:  # a network that is random, or that detaches its weights, is the user's to mend
        raise UserError(str(error)) from error


def spectrum_as_json(results: list[ProbeResult], measure: SpectralMeasure) -> dict[str, Any]:
    """Return a spectrum as JSON-able values: its range and mean, and nodes and quadrature weights per probe."""
    mean, error = measure.integrate(lambda nodes: nodes)
    probes = [
        {"nodes": rule.nodes.tolist(), "quadrature_weights": rule.quadrature_weights.tolist()}
        for rule in measure.quadratures
    ]
    return {
        "eigenvalue_max": max(max(probe["nodes"]) for probe in probes),
        "eigenvalue_min": min(min(probe["nodes"]) for probe in probes),
        "eigenvalue_mean": mean,
        "eigenvalue_mean_standard_error": None if math.isnan(error) else error,
        "num_matvecs": sum(result.tridiagonal.num_lanczos_steps for result in results),
        "restarts": sum(result.restarts for result in results),
        "probes": probes,
    }


def _as_json(predictions: list[Prediction], limit: str) -> dict[str, float | None]:
    at = {each.tolerance_factor: each.estimate for each in predictions if each.limit == limit}
    parts = ("sparsity_limit", "lower", "upper", "probe_standard_error")
    values = {part: getattr(at[1.0], part) for part in parts}
    values |= {"at_half_tolerance": at[0.5].sparsity_limit, "at_double_tolerance": at[2.0].sparsity_limit}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
