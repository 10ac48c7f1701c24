"""The sparsity limits of a network that a user brings: with a fixed effort, or to a tolerance."""

import math
from dataclasses import dataclass
from typing import Any

from suite.cells._context import silent
from suite.cells._network import NetworkSource
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import ProbeMap, inline_map
from suite.errors import UserError
from suite.limits.adaptive import Target
from suite.limits.curvature_treatment import Curvature
from suite.limits.predict import Prediction, lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import TolerantLimits
from suite.measure.spectrum import Effort, Progress, hessian_of, measure_spectrum
from suite.measure.tolerance import loss_tolerance, search_to_tolerance


@dataclass(frozen=True, eq=False)
class MeasuredLimits:
    """Both predicted limits of one network.

    Attributes:
        values: JSON-able. gaussian_width and statistical_dimension, each with sparsity_limit, lower, upper,
            probe_standard_error, and the limit at half and double the loss tolerance; loss_tolerance_nats,
            num_prunable_weights, num_matvecs, curvature, and the effort. With a tolerance also each limit's budget
            (see ErrorBudget), tolerance, converged, method, num_examples, gradient_equivalents, checks (see Check).
        measure: the spectral measure that they were computed from; of the last subset where examples were left out.
    """

    values: dict[str, Any]
    measure: SpectralMeasure


def measure_limits(
    source: NetworkSource,
    effort: Effort,
    *,
    loss_tolerance_nats: float | None = None,
    curvature: Curvature = "abs",
    tolerance: float | None = None,
    probe_map: ProbeMap = inline_map,
    progress: Progress = silent,
) -> MeasuredLimits:
    """Predict the sparsity limits of a user's network, with a fixed effort or to a tolerance.

    Args:
        source: the network.
        effort: probes and steps; the runs from the removed weights take as many steps. With a tolerance, its seed and
            distribution alone.
        loss_tolerance_nats: how much the mean loss may rise; None: the standard deviation of mini-batch losses over
            the whole training split.
        curvature: what negative eigenvalues count as.
        tolerance: of each limit's error, in sparsity: steps, probes and examples are chosen to reach it; None: a
            fixed effort. See suite.limits.subset_limits.
        probe_map: inline_map, or Ray actors. With a tolerance, one that keeps its runs saves most of the work
            (inline_map is exchanged for one), and one that saves them goes on after a kill, to the same bits.
        progress: called with a fraction and a text.

    Raises:
        UserError, FileRefused: see measure_spectrum; also a tolerance out of range, or saved runs of another network.
    """
    network = source.load()
    epsilon = loss_tolerance(network, loss_tolerance_nats)  # refused before any probe is paid for
    if tolerance is None:
        return _with_fixed_effort(source, effort, epsilon, curvature, probe_map, progress)
    try:
        target = Target(tolerance, epsilon, curvature, effort.seed, effort.distribution)
    except ValueError as error:
        raise UserError(str(error)) from error
    found = search_to_tolerance(source, network, target, probe_map, progress)
    values = _tolerant_values(found.limits, target) | {"restarts": found.restarts}
    return MeasuredLimits(values, found.limits.measure)


def _with_fixed_effort(
    source: NetworkSource,
    effort: Effort,
    epsilon: float,
    curvature: Curvature,
    probe_map: ProbeMap,
    progress: Progress,
) -> MeasuredLimits:
    network, results, measure = measure_spectrum(
        source, effort, probe_map, lambda fraction, text: progress(0.8 * fraction, text)
    )
    order = MagnitudeOrder.of(network.weights())
    operator = hessian_of(network.with_train_examples(source.num_examples, source.subset_seed), source.dtype)
    progress(0.8, "runs from the removed weights")
    steps = min(effort.num_lanczos_steps, order.dim)
    try:
        predictions = predict(measure, order, epsilon, lanczos_delta_measure(operator, order, steps), curvature)
    except ValueError as error:
        raise UserError(str(error)) from error
    num_probe_matvecs = sum(result.tridiagonal.num_lanczos_steps for result in results)
    values = {
        **{name: _as_json(predictions, name) for name in ("gaussian_width", "statistical_dimension")},
        "loss_tolerance_nats": epsilon,
        "num_prunable_weights": order.dim,
        "num_matvecs": num_probe_matvecs + operator.num_matvecs,
        "curvature": curvature,
        "num_probes": effort.num_probes,
        "num_lanczos_steps": steps,
        "num_examples": operator.num_examples,
        "seed": effort.seed,
        "restarts": sum(result.restarts for result in results),
    }
    return MeasuredLimits(values, measure)


def _tolerant_values(limits: TolerantLimits, target: Target) -> dict[str, Any]:
    last = limits.checks[-1]
    return {
        **{
            name: {**_as_json(limits.predictions, name), "budget": budget.as_json()}
            for name, budget in limits.budgets.items()
        },
        "loss_tolerance_nats": target.loss_tolerance_nats,
        "num_prunable_weights": limits.dim,
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


def _as_json(predictions: list[Prediction], limit: str) -> dict[str, float | None]:
    at = {each.tolerance_factor: each.estimate for each in predictions if each.limit == limit}
    parts = ("sparsity_limit", "lower", "upper", "probe_standard_error")
    values = {part: getattr(at[1.0], part) for part in parts}
    values |= {"at_half_tolerance": at[0.5].sparsity_limit, "at_double_tolerance": at[2.0].sparsity_limit}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
