"""The Hessian spectrum of a network that a user brings: with a fixed effort, or as well as a limit needs it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import silent
from suite.curvature.probes import ProbeRequest
from suite.curvature.quadrature import Quadrature, SpectralMeasure
from suite.curvature.rows import sample_row_norms
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, inline_map, slq, spectral_measure
from suite.limits.adaptive import FIRST_STEPS
from suite.measure.effort import Effort, announce, loaded_once, threads_of
from suite.measure.precision import precision_as_json
from suite.measure.tolerance import check_operands, loss_tolerance_of, search_as_json, search_to_tolerance, target_of
from suite.measure.watch import Progress, WatchedOperator, part_of
from suite.networks.loaded import Network
from suite.networks.sources import HeldNetwork, NetworkSource

NUM_ROWS = 100  # one per magnitude percentile


@dataclass(frozen=True, eq=False)
class MeasuredSpectrum:
    """The spectrum of one network.

    Attributes:
        values: JSON-able. eigenvalue_max, eigenvalue_min, eigenvalue_mean and its standard error; status, the worst of
            the runs'; probes, each with its status, nodes and quadrature weights; precision and rounding_bias (see
            precision_as_json); threads per worker; the effort. With rows also rows: index, magnitude, l1_norm, diagonal
            of each, and their summary. With a tolerance also what search_as_json says.
        measure: the spectral measure, of the runs whose products were finite; None where there is no such run.
    """

    values: dict[str, Any]
    measure: SpectralMeasure | None


def measure_spectrum(
    source: NetworkSource,
    effort: Effort,
    *,
    rows: bool = False,
    tolerance: float | None = None,
    loss_tolerance_nats: float | None = None,
    probe_map: ProbeMap = inline_map,
    progress: Progress = silent,
) -> MeasuredSpectrum:
    """Measure the spectrum of a user's network, with a fixed effort or to a tolerance.

    Args:
        source: the network.
        effort: probes and steps; with a tolerance, its seed and distribution alone.
        rows: also compute the L1 norms of 100 rows, one per magnitude percentile.
        tolerance: error allowed in the sparsity limits that the spectrum gives: steps, probes and examples are chosen
            to reach it; None: a fixed effort. See suite.limits.subset_limits.
        loss_tolerance_nats: of these limits; None: the standard deviation of mini-batch losses.
        probe_map: see measure_limits.
        progress: called with a fraction and a text.

    Raises:
        UserError: model, weights and data do not fit, or, with a tolerance, a product is not finite. FileRefused: the
            data file.

    Cost: num_probes * num_lanczos_steps Hessian-vector products over the training split; rows: 100 more; with a
        tolerance see limits_to_tolerance.
    """
    if tolerance is not None:
        check_operands(source, tolerance)
    network = source.load()
    epsilon = None if tolerance is None else loss_tolerance_of(network, loss_tolerance_nats)
    operator = HeldNetwork(source, network).build()  # refuses what has no fixed Hessian before any worker starts
    source = loaded_once(source, network, probe_map)
    values = {"threads": threads_of(probe_map)} | precision_as_json(source, network, effort.seed)
    main = part_of(progress, 0.0, 0.8) if rows else progress
    if tolerance is None or epsilon is None:
        found = _fixed(source, operator, effort, probe_map, main)
    else:
        target = target_of(tolerance, epsilon, "abs", effort)
        announce(operator, FIRST_STEPS, num_runs=2)
        search = search_to_tolerance(source, network, target, probe_map, main)
        known = spectrum_as_json(search.probes, search.limits.measure)
        found = MeasuredSpectrum(known | search_as_json(search, target), search.limits.measure)
    if rows:
        values["rows"] = _rows(operator, network, effort.seed, part_of(progress, 0.8, 1.0))
    return MeasuredSpectrum(_long_lists_last(found.values | values), found.measure)


def run_probes(
    source: OperatorSource, operator: SymmetricOperator, effort: Effort, probe_map: ProbeMap, progress: Progress
) -> list[ProbeResult]:
    """Run the probes of a fixed effort on the operator of a source, with as many steps as it has weights at most."""
    steps = min(effort.num_lanczos_steps, operator.dim)
    announce(operator, steps)
    requests = [ProbeRequest(effort.seed, index, effort.distribution, steps) for index in range(effort.num_probes)]
    return slq(source, requests, map=probe_map, advance=progress)


def spectrum_as_json(results: Sequence[ProbeResult], measure: SpectralMeasure | None) -> dict[str, Any]:
    """Return a spectrum as JSON-able values: its range and mean, and nodes and quadrature weights per run.

    Args:
        results: the runs that were asked for; none for a dense Hessian.
        measure: of those that are finite, in their order; None: there is none.
    """
    mean, error = (math.nan, math.nan) if measure is None else measure.integrate(lambda nodes: nodes)
    rules = [] if measure is None else list(measure.quadratures)
    statuses = [result.tridiagonal.status for result in results] or ["complete"] * len(rules)
    left = iter(rules)
    probes = [_probe_as_json(status, None if status == "nonfinite" else next(left)) for status in statuses]
    ends = {
        "eigenvalue_max": max((float(rule.nodes.max()) for rule in rules), default=math.nan),
        "eigenvalue_min": min((float(rule.nodes.min()) for rule in rules), default=math.nan),
        "eigenvalue_mean": mean,
        "eigenvalue_mean_standard_error": error,
    }
    return {
        **{name: None if math.isnan(value) else value for name, value in ends.items()},
        "status": next((each for each in ("nonfinite", "breakdown") if each in statuses), "complete"),
        "num_matvecs": sum(result.tridiagonal.num_lanczos_steps for result in results),
        "restarts": sum(result.restarts for result in results),
        "reissued": sum(result.reissued for result in results),
        "probes": probes,
    }


def _probe_as_json(status: str, rule: Quadrature | None) -> dict[str, Any]:
    nodes, masses = ([], []) if rule is None else (rule.nodes.tolist(), rule.quadrature_weights.tolist())
    return {"status": status, "nodes": nodes, "quadrature_weights": masses}


def _fixed(
    source: NetworkSource, operator: SymmetricOperator, effort: Effort, probe_map: ProbeMap, progress: Progress
) -> MeasuredSpectrum:
    results = run_probes(source, operator, effort, probe_map, progress)
    finite = [result for result in results if result.tridiagonal.status != "nonfinite"]
    measure = spectral_measure(finite) if finite else None
    values = {
        **spectrum_as_json(results, measure),
        "num_prunable_weights": operator.dim,
        "num_probes": effort.num_probes,
        "num_lanczos_steps": min(effort.num_lanczos_steps, operator.dim),
        "num_examples": getattr(operator, "num_examples", None),
        "seed": effort.seed,
    }
    return MeasuredSpectrum(values, measure)


def _rows(operator: SymmetricOperator, network: Network, seed: int, progress: Progress) -> dict[str, Any]:
    weights = network.weights()
    number = min(NUM_ROWS, len(weights))
    watched = WatchedOperator(operator, "rows of the Hessian", number, progress)
    rows = sample_row_norms(watched, weights, seed, num_percentiles=number)
    return {
        **{name: value if math.isfinite(value) else None for name, value in rows.summary().items()},
        "num_matvecs": rows.norms.num_matvecs,
        "index": rows.norms.rows.tolist(),
        "magnitude": rows.magnitudes.tolist(),
        "l1_norm": _finite(rows.norms.l1_norms),
        "diagonal": _finite(rows.norms.diagonal),
    }


def _finite(values: Iterable[float]) -> list[float | None]:
    """Return numbers as JSON knows them: None for those that are none."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _long_lists_last(values: dict[str, Any]) -> dict[str, Any]:
    last = ("rows", "checks", "probes")
    return {name: values[name] for name in sorted(values, key=lambda name: last.index(name) if name in last else -1)}
