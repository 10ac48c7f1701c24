"""The Hessian spectrum of a network that a user brings, with a fixed effort."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.cells._network import Network, NetworkSource
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import Distribution, ProbeRequest
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import ProbeMap, ProbeResult, slq, spectral_measure
from suite.errors import UserError

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Effort:
    """How much is computed: num_probes runs of num_lanczos_steps products, from a seed."""

    num_probes: int = 4
    num_lanczos_steps: int = 64
    seed: int = 0
    distribution: Distribution = "rademacher"


def measure_spectrum(
    source: NetworkSource, effort: Effort, probe_map: ProbeMap, progress: Progress
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
    hessian_of(network, source.dtype)  # refuses what has no fixed Hessian before any worker starts
    results = slq(source, requests, map=probe_map, advance=progress)
    try:
        return network, results, spectral_measure(results)
    except ValueError as error:
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


def hessian_of(network: Network, dtype: str) -> HessianOperator:
    """Return the Hessian over the training split.

    Raises:
        UserError: the network is random, normalises by the batch, or detaches its weights; the module is named.
    """
    try:
        return network.hessian(dtype)
    except ValueError as error:
        raise UserError(str(error)) from error
