"""Spectrum and limits of a user's own network, without a study: what `espalier spectrum` and `limit` compute."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.cells._context import silent
from suite.cells._network import Network, UserNetwork
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import Distribution, ProbeRequest, RunRequest
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, inline_map, slq, spectral_measure
from suite.errors import UserError
from suite.limits.adaptive import Target
from suite.limits.curvature_treatment import Curvature
from suite.limits.error_budget import Check
from suite.limits.predict import Prediction, lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import TolerantLimits, limits_to_tolerance

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
    tolerance: float | None = None,
    folder: Path | None = None,
    probe_map: ProbeMap = inline_map,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Predict the sparsity limits of a user's network, with a fixed effort or to a tolerance.

    Args:
        source: the network.
        effort: probes and steps; the runs from the removed weights take as many steps. With a tolerance, its seed and
            distribution alone.
        loss_tolerance_nats: how much the mean loss may rise; None: the standard deviation of mini-batch losses over
            the whole training split.
        curvature: what negative eigenvalues count as.
        tolerance: of each limit's error, in sparsity: steps, probes and examples are chosen to reach it; None: a
            fixed effort over all examples. See suite.limits.subset_limits.
        folder: with a tolerance and inline, where runs are saved after each check and gone on with when the same call
            is made again; the result is the same bit for bit. Another map saves by itself.
        probe_map: inline, or Ray actors.
        progress: called with a fraction and a text.

    Returns:
        JSON-able: gaussian_width and statistical_dimension (each with sparsity_limit, lower, upper,
        probe_standard_error, and the limit at half and double the tolerance), loss_tolerance_nats,
        num_prunable_weights, num_matvecs, curvature, and the effort. With a tolerance also each limit's budget (see
        ErrorBudget), tolerance, converged, method, num_examples, gradient_equivalents and checks (see Check).

    Raises:
        UserError, FileRefused: see measure_spectrum; also a tolerance out of range, or a folder that cannot be used.
    """
    network = source.load()
    epsilon = loss_tolerance_nats or network.loss_tolerance_nats()  # refused before any probe is paid for
    if not epsilon > 0:
        raise UserError(
            "All mini-batch losses are equal, so their spread is no tolerance. Give --loss-tolerance (nats)."
        )
    if tolerance is not None:
        try:
            target = Target(tolerance, epsilon, curvature, effort.seed, effort.distribution)
        except ValueError as error:
            raise UserError(str(error)) from error
        return _measure_to_tolerance(source, network, target, folder, probe_map, progress)
    network, results, measure = measure_spectrum(
        source, effort, probe_map, lambda fraction, text: progress(0.8 * fraction, text)
    )
    order = MagnitudeOrder.of(network.weights())
    operator = _hessian(network, source.dtype)
    progress(0.8, "runs from the removed weights")
    steps = min(effort.num_lanczos_steps, order.dim)
    try:
        predictions = predict(measure, order, epsilon, lanczos_delta_measure(operator, order, steps), curvature)
    except ValueError as error:
        raise UserError(str(error)) from error
    num_probe_matvecs = sum(result.tridiagonal.num_lanczos_steps for result in results)
    return {
        **{name: _as_json(predictions, name) for name in ("gaussian_width", "statistical_dimension")},
        "loss_tolerance_nats": epsilon,
        "num_prunable_weights": order.dim,
        "num_matvecs": num_probe_matvecs + operator.num_matvecs,
        "curvature": curvature,
        "num_probes": effort.num_probes,
        "num_lanczos_steps": steps,
        "seed": effort.seed,
        "restarts": sum(result.restarts for result in results),
    }


def _measure_to_tolerance(
    source: UserNetwork,
    network: Network,
    target: Target,
    folder: Path | None,
    probe_map: ProbeMap,
    progress: Progress,
) -> dict[str, Any]:
    order = MagnitudeOrder.of(network.weights())
    num_examples = len(network.splits["train"][1])
    _hessian(network, source.dtype)  # refuses what has no fixed Hessian before any worker starts

    def source_of(size: int) -> UserNetwork:
        return replace(source, num_examples=None if size == num_examples else size, subset_seed=target.seed)

    with growing_inline_map(folder) if probe_map is inline_map else nullcontext(probe_map) as inner:
        watched = _Watched(inner, progress)
        try:
            limits = limits_to_tolerance(source_of, num_examples, order, target, watched, watched.report)
        except ValueError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}. Give a folder of your own.") from error
    return _tolerant_as_json(limits, target, order.dim) | {"restarts": watched.num_restarts}


class _Watched:
    """A map that counts what passes through it, and says after each check how it stands."""

    def __init__(self, inner: ProbeMap, progress: Progress) -> None:
        self.num_restarts = 0
        self._inner, self._progress = inner, progress
        self._num_steps: dict[str, int] = {}
        self._num_products, self._seconds, self._fraction = 0, 0.0, 0.0

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        begin_s = time.perf_counter()
        for result in self._inner(source, requests):
            name = f"{source} {result.request.name if result.request else result.index}"
            steps = result.tridiagonal.num_lanczos_steps
            self._num_products += max(0, steps - self._num_steps.get(name, 0))
            self._num_steps[name] = steps
            self.num_restarts += result.restarts
            yield result
        self._seconds += time.perf_counter() - begin_s

    def report(self, check: Check, most_products_left: int) -> None:
        """Show one check: where the limits stand, how fast it goes, how long it can still take."""
        rate = self._num_products / self._seconds if self._seconds else 0.0
        done = check.num_matvecs / max(1, check.num_matvecs + most_products_left)
        self._fraction = max(self._fraction, done)
        limits = ", ".join(
            f"{name} {check.limits[name]:.3f} ± {check.budgets[name].total:.3f}" for name in check.limits
        )
        left = f", {most_products_left / rate:.0f} s at most with these examples" if rate and most_products_left else ""
        self._progress(
            self._fraction,
            f"{limits} ({check.num_lanczos_steps} steps, {check.num_probes} probes, {check.num_examples} examples; "
            f"{rate:.3g} products/s{left})",
        )


def _tolerant_as_json(limits: TolerantLimits, target: Target, dim: int) -> dict[str, Any]:
    last = limits.checks[-1]
    return {
        **{
            name: {**_as_json(limits.predictions, name), "budget": budget.as_json()}
            for name, budget in limits.budgets.items()
        },
        "loss_tolerance_nats": target.loss_tolerance_nats,
        "num_prunable_weights": dim,
        "num_matvecs": last.num_matvecs,
        "curvature": target.curvature,
        "num_probes": last.num_probes,
        "num_lanczos_steps": last.num_lanczos_steps,
        "seed": target.seed,
        "tolerance": target.tolerance,
        "converged": limits.converged,
        "method": limits.method,
        "num_examples": last.num_examples,
        "gradient_equivalents": last.gradient_equivalents,
        "checks": [check.as_json() for check in limits.checks],
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
