"""Both limits to a tolerance, from as few examples, Lanczos steps and probes as that takes.

The examples are nested random subsets. Fewer examples bias a limit smoothly, by about a / n: the change from one
subset to a larger one gives a, the limit is extrapolated to all examples by it, and the whole of that correction counts
as error. One change may be small by chance, so two are asked for before a subset is trusted.

Measured against dense Hessians on five networks of 740 weights and 16,384 digits, both limits at two loss tolerances:
subsets of 256, 1,024 and 4,096 were too high by 0.05 to 0.18, 0.02 to 0.07 and 0.005 to 0.02, so a small one is never
taken for all where there is a bias. Extrapolated from subsets of 256 to 1,024, 512 to 2,048 and 1,024 to 4,096, the
limits were off by at most 1.5, 2.1 and 2.2 times `subset_bias`, by half of it on the average.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.quadrature import SpectralMeasure, atoms, measure_of_tridiagonals
from suite.curvature.slq import OperatorSource, ProbeMap
from suite.limits.adaptive import GRADIENTS_PER_BLOCK_PRODUCT, Ledger, Report, StepSearch, Target
from suite.limits.bracket import LIMITS, Runs
from suite.limits.error_budget import Check, ErrorBudget
from suite.limits.estimate import LimitEstimate, kinematic_half_width
from suite.limits.exact import exact_delta_measure
from suite.limits.other_tolerances import ScaledLimits, with_the_direction_held, with_their_own_directions
from suite.limits.predict import Prediction, predict
from suite.limits.removal import MagnitudeOrder

logger = logging.getLogger(__name__)

FIRST_EXAMPLES = 256
FEWEST_FOR_SUBSETS = 8 * FIRST_EXAMPLES  # three subsets and their doubles cost as much as all examples below this
_SUBSET_SHARE = math.sqrt(0.5)  # of the tolerance, as long as not all examples are taken


@dataclass(frozen=True)
class TolerantLimits:
    """Limits computed to a tolerance.

    Attributes:
        predictions: both limits at each tolerance factor. Those at other factors than 1 share the random probes, and
            what two short runs from their own removed weights say is added (see suite.limits.other_tolerances);
            where the search gave up, the removed weights' direction is held fixed instead.
        budgets: limit -> its errors at factor 1.
        checks: all looks on the way; the last one is the result's.
        converged: False where the search gave up; the budgets say how far it came.
        method: "lanczos", or "dense" where the whole Hessian cost less.
        measure: the spectral measure, for pictures: Gauss rules of the last runs, or all eigenvalues.
        dim: number of prunable weights.
        num_removed: of the run from removed weights that the limits come from; 0: there was none.
    """

    predictions: list[Prediction]
    budgets: dict[str, ErrorBudget]
    checks: tuple[Check, ...]
    converged: bool
    method: str
    measure: SpectralMeasure
    dim: int
    num_removed: int


def unreported(check: Check, most_products_left: int) -> None:
    """Take a check and show nothing."""
    del check, most_products_left


def limits_to_tolerance(
    source_of: Callable[[int], OperatorSource],
    num_examples: int,
    order: MagnitudeOrder,
    target: Target,
    probe_map: ProbeMap,
    report: Report = unreported,
) -> TolerantLimits:
    """Compute both limits to a tolerance at least cost.

    Args:
        source_of: number of examples -> where the operator over that many comes from; nested subsets.
        num_examples: all of them.
        order: the prunable weights.
        target: what is computed, and how well.
        probe_map: runs the requests; one that keeps runs (growing_inline_map) saves most of the work.
        report: called after each check with the most products that may follow, and after each block of columns of a
            dense Hessian with the columns that do.

    Returns:
        Limits whose root sum of squares of probe_standard_error, truncation and subset_bias is within the tolerance,
        or converged=False and a warning in the log, early where more steps promise nothing (see
        suite.limits.outlook). This is one standard deviation and two widths that held in
        measurements, not a bound: 42 of 44 limits of 11 networks for digits (4,464 and 6,464 weights) came within
        0.005 of the dense Hessian's at that tolerance, all within 0.008; at 0.02 all 44 did.

    Raises:
        ValueError: a product was not finite.

    Cost: on those networks 120 to 376 products for a tolerance of 0.005 after training with an L1 penalty, 1,400
        without (dim = 4,464, a loss tolerance of 0.0005); at 0.02, 88 to 376. See Check.gradient_equivalents.
    """
    ledger = Ledger(num_examples)
    search = StepSearch(order, target, probe_map, ledger, report)
    if search.dense_takes_over(num_examples):
        return _dense(source_of(num_examples), num_examples, search, ledger, report)
    seen: list[tuple[int, Check]] = []
    size = first_size(num_examples)
    while True:
        part = 1.0 if size == num_examples else _SUBSET_SHARE
        runs, converged = search.run(source_of(size), size, part * target.tolerance)
        if not converged and search.dense_takes_over(size):
            return _dense(source_of(num_examples), num_examples, search, ledger, report)
        seen.append((size, search.checks[-1]))
        shifts, biases = extrapolated([(at, check.limits) for at, check in seen], num_examples)
        check = _with_biases(search.checks[-1], shifts, biases)
        search.checks[-1] = check
        within = check.total <= target.tolerance
        if size == num_examples or (converged and within) or search.gave_up:
            return _finished(
                runs, search, _at_all_tolerances(runs, search, source_of(size), size, shifts, within), ledger
            )
        excess = max(biases.values()) / (_SUBSET_SHARE * target.tolerance)
        size = next_size(size, excess, num_examples) if converged else num_examples


def first_size(num_examples: int) -> int:
    """Return how many examples to begin with: all, where subsets do not pay."""
    return FIRST_EXAMPLES if num_examples >= FEWEST_FOR_SUBSETS else num_examples


def next_size(size: int, excess: float, num_examples: int) -> int:
    """Return how many examples to take next: twice as many, more where the bias asks for it, all where half is passed.

    Args:
        size: now.
        excess: bias over what it may be, infinite where it is not known yet; the bias falls as 1 / n.
        num_examples: all.
    """
    wanted = 2 * size
    while math.isfinite(excess) and wanted < excess * size:
        wanted *= 2
    return wanted if 2 * wanted <= num_examples else num_examples


def extrapolated(
    seen: Sequence[tuple[int, dict[str, float]]], num_examples: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what is to be added to the last limits, and how much of the error the missing examples are.

    Args:
        seen: sizes, growing, each with its limits in sparsity.
        num_examples: all of them.

    Returns:
        Shifts and biases by limit: no shift with all examples, an infinite bias with fewer than three sizes.
    """
    size = seen[-1][0]
    if size == num_examples:
        return dict.fromkeys(LIMITS, 0.0), dict.fromkeys(LIMITS, 0.0)
    if len(seen) < 3:
        return dict.fromkeys(LIMITS, 0.0), dict.fromkeys(LIMITS, math.inf)
    shifts, biases = {}, {}
    for name in LIMITS:
        each = []
        for (fewer, before), (more, after) in zip(seen[-3:-1], seen[-2:], strict=True):
            slope = (after[name] - before[name]) / (1 / fewer - 1 / more)
            each.append(slope * (1 / size - 1 / num_examples))
        shifts[name], biases[name] = each[-1], max(abs(value) for value in each)
    return shifts, biases


def _with_biases(check: Check, shifts: dict[str, float], biases: dict[str, float]) -> Check:
    budgets = {name: replace(check.budgets[name], subset_bias=biases[name]) for name in LIMITS}
    return replace(check, budgets=budgets, limits={name: check.limits[name] + shifts[name] for name in LIMITS})


def _at_all_tolerances(
    runs: Runs, search: StepSearch, source: OperatorSource, size: int, shifts: dict[str, float], within: bool
) -> ScaledLimits:
    """Return both limits at each tolerance factor, shifted; short runs are not paid for where the search gave up."""
    if within:
        limits = with_their_own_directions(runs, search, source, size)
    else:
        limits = with_the_direction_held(runs, search.target.loss_tolerance_nats)
    return {(name, scale): min(1.0, max(0.0, limit + shifts[name])) for (name, scale), limit in limits.items()}


def _finished(runs: Runs, search: StepSearch, limits: ScaledLimits, ledger: Ledger) -> TolerantLimits:
    check, target = search.checks[-1], search.target
    within = check.total <= target.tolerance
    if not within:
        logger.warning("no convergence to %g: the error is %.4f%s", target.tolerance, check.total, _reason(search))
    predictions = [_prediction(search, name, scale, limit, within) for (name, scale), limit in limits.items()]
    budgets = {
        name: replace(check.budgets[name], epsilon_sensitivity=0.5 * (limits[name, 2.0] - limits[name, 0.5]))
        for name in LIMITS
    }
    check = replace(
        check,
        num_matvecs=ledger.num_matvecs,
        gradient_equivalents=ledger.gradient_equivalents,
        budgets=budgets,
    )
    measure = measure_of_tridiagonals((run.diagonal, run.off_diagonal) for run in runs.probes)
    checks = (*search.checks[:-1], check)
    return TolerantLimits(
        predictions, budgets, checks, within, "lanczos", measure, search.order.dim, search.num_removed
    )


def _prediction(search: StepSearch, name: str, scale: float, limit: float, within: bool) -> Prediction:
    target, dim = search.target, search.order.dim
    half_width = kinematic_half_width(dim)
    estimate = LimitEstimate(
        sparsity_limit=limit,
        lower=max(0.0, limit - half_width),
        upper=1.0 if name == "gaussian_width" else min(1.0, limit + half_width),
        probe_standard_error=search.checks[-1].budgets[name].probe_standard_error,
        num_removed=math.floor(limit * dim),
        loss_tolerance_nats=scale * target.loss_tolerance_nats,
        curvature=target.curvature,
        num_delta_runs=0 if name == "gaussian_width" else 1,
        converged=within,
    )
    return Prediction(name, scale, estimate)


def _reason(search: StepSearch) -> str:
    """Return why steps were given up, as the end of a sentence; nothing where they were not."""
    if not search.gave_up:
        return ""
    return (
        f" and hardly falls with more steps: loss_tolerance_nats={search.target.loss_tolerance_nats:g} is so small "
        f"that the limits hang on eigenvalues of about {search.scale():.0e}, below what {search.num_lanczos_steps} "
        "Lanczos steps resolve. Give a larger loss tolerance, or more steps."
    )


def _dense(
    source: OperatorSource, num_examples: int, search: StepSearch, ledger: Ledger, report: Report
) -> TolerantLimits:
    """Compute both limits from the whole Hessian over all examples: nothing sampled, nothing truncated.

    After each block of columns the last check's limits are reported again, with the work so far and the columns left.
    """
    order, target = search.order, search.target
    operator = source.build()
    known = (search.checks[-1].limits, search.checks[-1].budgets) if search.checks else ({}, {})

    def show(done: int, total: int) -> None:
        paid = replace(ledger)
        paid.add(num_examples, operator.num_matvecs, GRADIENTS_PER_BLOCK_PRODUCT)
        report(Check(num_examples, 0, 0, paid.num_matvecs, paid.gradient_equivalents, *known), total - done)

    eigen = eigendecomposition(dense_hessian(operator, max_dim=order.dim, progress=show), max_dim=order.dim)
    ledger.add(num_examples, operator.num_matvecs, GRADIENTS_PER_BLOCK_PRODUCT)
    eigenvalues = eigen.eigenvalues.cpu().numpy()
    delta_measure = exact_delta_measure(eigenvalues, eigen.eigenvectors.cpu().numpy(), order)
    predictions = predict(
        atoms(eigenvalues), order, target.loss_tolerance_nats, delta_measure, target.curvature, resolution=0.0
    )
    found = {(each.limit, each.tolerance_factor): each.estimate.sparsity_limit for each in predictions}
    budgets = {
        name: ErrorBudget(0.0, 0.0, 0.0, epsilon_sensitivity=0.5 * (found[name, 2.0] - found[name, 0.5]))
        for name in LIMITS
    }
    limits = {name: found[name, 1.0] for name in LIMITS}
    check = Check(num_examples, 0, 0, ledger.num_matvecs, ledger.gradient_equivalents, limits, budgets)
    report(check, 0)
    return TolerantLimits(
        predictions, budgets, (*search.checks, check), True, "dense", atoms(eigenvalues), order.dim, 0
    )
