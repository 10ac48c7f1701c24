"""The sparsity limits of a network that a user brings: with a fixed effort, or to a tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from suite.curvature.operators import HessianOperator
from suite.curvature.pace import silent
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import ProbeMap, inline_map, spectral_measure
from suite.errors import UserError
from suite.limits.adaptive import FIRST_STEPS
from suite.limits.curvature_treatment import Curvature
from suite.limits.predict import Prediction, predict
from suite.limits.removal import MagnitudeOrder
from suite.measure.beside import Beside, limits_beside
from suite.measure.effort import Effort, announce, built_once, loaded_once, threads_of
from suite.measure.fixed_budget import fixed_effort_budgets
from suite.measure.precision import precision_as_json
from suite.measure.quality import quality_as_json
from suite.measure.removed_runs import RemovedRuns
from suite.measure.spectrum import run_probes
from suite.measure.tolerance import (
    check_operands,
    limit_as_json,
    loss_tolerance_of,
    search_as_json,
    search_to_tolerance,
    target_of,
)
from suite.measure.watch import Progress, part_of
from suite.networks.loaded import Network
from suite.networks.sources import HeldNetwork, NetworkSource

_DELTA_RUNS = 10  # that searches from removed weights take, at three tolerances; a guess, for progress alone


@dataclass(frozen=True, eq=False)
class MeasuredLimits:
    """The predicted limits of one network.

    Attributes:
        values: JSON-able. gaussian_width and statistical_dimension, each with sparsity_limit, lower, upper,
            probe_standard_error, the limit at half and double the loss tolerance, and its budget (see ErrorBudget);
            mean_loss_nats, accuracy, loss_tolerance_nats, num_prunable_weights, num_matvecs, curvature, precision and
            rounding_bias (see precision_as_json), threads per worker, and the effort. With a tolerance also tolerance,
            converged, method, num_examples, gradient_equivalents, checks (see Check). Where asked for,
            gaussian_width_faithful and masked_quadratic (see limits_beside).
        measure: the spectral measure that they were computed from; of the last subset where examples were left out.
    """

    values: dict[str, Any]
    measure: SpectralMeasure


@dataclass(frozen=True, eq=False)
class _Found:
    predictions: Sequence[Prediction]
    measure: SpectralMeasure
    values: dict[str, Any]


def measure_limits(
    source: NetworkSource,
    effort: Effort,
    *,
    loss_tolerance_nats: float | None = None,
    curvature: Curvature = "abs",
    tolerance: float | None = None,
    beside: Sequence[Beside] = (),
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
        beside: further limits, over the examples of the source: "faithful": the published recipe with its own
            numerics; "masked": the quadratic limit of the actual magnitude masks.
        probe_map: inline_map, or Ray actors, best such as stand from call to call: it computes all runs, and those from
            the removed weights are asked for one by one. With a tolerance, one that keeps its runs saves most of the
            work (inline_map is exchanged for one), and one that saves them goes on after a kill, to the same bits.
        progress: called with a fraction and a text.

    Raises:
        UserError, FileRefused: see measure_spectrum; also a product that is not finite, a tolerance out of range, or
            saved runs of another network.
    """
    if tolerance is not None:
        check_operands(source, tolerance)
    network = source.load()
    epsilon = loss_tolerance_of(network, loss_tolerance_nats)  # refused before any probe is paid for
    operator = HeldNetwork(source, network).build()  # refuses what has no fixed Hessian before any worker starts
    quality = quality_as_json(network, epsilon)
    source = loaded_once(source, network, probe_map)
    precision = precision_as_json(source, network, effort.seed)
    main = part_of(progress, 0.0, 0.7) if beside else progress
    if tolerance is None:
        found = _with_fixed_effort(source, network, operator, effort, epsilon, curvature, probe_map, main)
    else:
        target = target_of(tolerance, epsilon, curvature, effort)
        announce(operator, FIRST_STEPS, num_runs=2)
        search = search_to_tolerance(source, network, target, probe_map, main)
        found = _Found(search.limits.predictions, search.limits.measure, search_as_json(search, target))
    further = limits_beside(
        operator,
        network,
        found.predictions,
        beside,
        loss_tolerance_nats=epsilon,
        seed=effort.seed,
        progress=part_of(progress, 0.7, 1.0),
    )
    threads = {"threads": threads_of(probe_map)}
    values = quality | found.values | threads | further | precision
    return MeasuredLimits(_limits_first(values), found.measure)


def _with_fixed_effort(
    source: NetworkSource,
    network: Network,
    operator: HessianOperator,
    effort: Effort,
    epsilon: float,
    curvature: Curvature,
    probe_map: ProbeMap,
    progress: Progress,
) -> _Found:
    order = MagnitudeOrder.of(network.weights())
    steps = min(effort.num_lanczos_steps, order.dim)
    built = built_once(source, operator, probe_map)
    results = run_probes(built, operator, effort, probe_map, part_of(progress, 0.0, 0.8))
    removed = RemovedRuns(built, probe_map, steps, _DELTA_RUNS * steps, part_of(progress, 0.8, 1.0))
    try:
        measure = spectral_measure(results)
        predictions = predict(measure, order, epsilon, removed, curvature)
    except ValueError as error:
        raise UserError(str(error)) from error
    probes = [result.tridiagonal for result in results]
    is_whole = operator.num_examples == len(network.splits["train"].targets)
    budgets = fixed_effort_budgets(probes, removed.runs, order, predictions, of_all_examples=is_whole)
    values = {
        **{name: limit_as_json(predictions, name, budget) for name, budget in budgets.items()},
        "loss_tolerance_nats": epsilon,
        "num_prunable_weights": order.dim,
        "num_matvecs": sum(result.tridiagonal.num_lanczos_steps for result in results) + removed.num_matvecs,
        "curvature": curvature,
        "num_probes": effort.num_probes,
        "num_lanczos_steps": steps,
        "num_examples": operator.num_examples,
        "seed": effort.seed,
        "restarts": sum(result.restarts for result in results) + removed.num_restarts,
        "reissued": sum(result.reissued for result in results) + removed.num_reissued,
    }
    return _Found(predictions, measure, values)


def _limits_first(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the limits before, and the checks after all others."""
    rank = {name: 0 for name, value in values.items() if isinstance(value, dict) and "sparsity_limit" in value}
    return {name: values[name] for name in sorted(values, key=lambda name: rank.get(name, 1 + (name == "checks")))}
