"""Both limits of one Hessian to a tolerance: as many Lanczos steps and probes as that takes, and no more.

Every check asks for the same runs with more steps, so a map that keeps its runs (suite.curvature.growing_runs) pays
for the new steps alone. What is asked next depends on results alone: a search that is begun again over saved runs asks
the same and ends the same.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from suite.curvature.lanczos import Tridiagonal
from suite.curvature.probes import Distribution, ProbeRequest, RemovedWeightsRequest, RunRequest
from suite.curvature.slq import OperatorSource, ProbeMap, run_requests
from suite.limits.bracket import LIMITS, Bracket, Runs
from suite.limits.curvature_treatment import Curvature
from suite.limits.error_budget import Check, ErrorBudget
from suite.limits.outlook import has_many_far_out, is_out_of_reach
from suite.limits.removal import MagnitudeOrder

logger = logging.getLogger(__name__)

FIRST_STEPS = 24  # at 16 a network of 4,464 weights was off by 1.6 times what it reported
_PROBE_SHARE = 0.6  # of the tolerance; truncation then has 0.8, and more probes are dearer than more steps
# The limit moves by this much of the way between the removed weights' count and itself. Measured: 0.13 to 0.15.
_DRIFT = 0.15
_DRIFT_SHARE = 0.2  # of the tolerance, or of the truncation; beyond it the run from removed weights begins anew
_REMOVED_FROM = 3.0  # times the tolerance: above this truncation no run from removed weights is begun
# Gradients of the same examples per product: on kept graphs, or of a block, 1.3 (FC5), 1.6 (ResNet-20), 1.9 (ResNet-18)
# as in tests/performance/results/products.json; a product alone that does its own first pass is taken as 2.
GRADIENTS_PER_PRODUCT = 2.0
GRADIENTS_PER_BLOCK_PRODUCT = 1.6

Report = Callable[[Check, int], None]  # the check, the most products that may follow


@dataclass(frozen=True)
class Target:
    """What is computed, and how well.

    Attributes:
        tolerance: of each limit's total error, in sparsity.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        curvature: treatment of negative eigenvalues.
        seed: of the probes, and of the subsets of examples.
        distribution: of the probes.
        max_num_lanczos_steps: where the search gives up.
        max_num_probes: the same.
        max_dense_dim: the largest dimension at which the dense Hessian may take over, where it costs less or where
            Lanczos steps cannot reach the tolerance; 0: never.
    """

    tolerance: float
    loss_tolerance_nats: float
    curvature: Curvature = "abs"
    seed: int = 0
    distribution: Distribution = "rademacher"
    max_num_lanczos_steps: int = 512
    max_num_probes: int = 64
    max_dense_dim: int = 4096

    def __post_init__(self) -> None:
        """Check the tolerance.

        Raises:
            ValueError: it is not between 0 and 1.
        """
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance={self.tolerance} is out of range. Expected: a sparsity between 0 and 1.")


@dataclass
class Ledger:
    """Work paid for: what the results say, whether or not they were there already after a resume.

    Attributes:
        num_all_examples: of the whole training split.
        num_matvecs: products.
        gradient_equivalents: in gradients of the whole training split.
    """

    num_all_examples: int
    num_matvecs: int = 0
    gradient_equivalents: float = 0.0
    _steps: dict[tuple[int, str], int] = field(default_factory=dict)

    def enter(self, num_examples: int, request: RunRequest, run: Tridiagonal) -> None:
        """Count the steps by which a run is longer than it was entered before."""
        place = (num_examples, request.name)
        new = max(0, run.num_lanczos_steps - self._steps.get(place, 0))
        self._steps[place] = self._steps.get(place, 0) + new
        self.add(num_examples, new, GRADIENTS_PER_PRODUCT)

    def add(self, num_examples: int, num_matvecs: int, gradients_per_product: float) -> None:
        """Count products over some of the examples."""
        self.num_matvecs += num_matvecs
        self.gradient_equivalents += gradients_per_product * num_matvecs * num_examples / self.num_all_examples


class StepSearch:
    """The search over steps and probes; it goes on from what it has learnt when it is given another source.

    Args:
        order: the prunable weights, in the units and the order of the operators.
        target: what is computed, and how well.
        probe_map: runs the requests; one that keeps runs saves most of the work.
        ledger: where work is entered.
        report: called after each check.

    Attributes:
        checks: all checks so far.
        num_removed: count of the run from removed weights; 0 until a limit is known well enough.
        gave_up: the largest number of steps was foreseen to leave the tolerance out of reach.
    """

    def __init__(
        self, order: MagnitudeOrder, target: Target, probe_map: ProbeMap, ledger: Ledger, report: Report
    ) -> None:
        self.order = order
        self.target = target
        self.checks: list[Check] = []
        self.num_probes = 1
        self.num_lanczos_steps = min(FIRST_STEPS, self._most_steps)
        self.num_removed, self.gave_up = 0, False
        self._map, self._ledger, self._report = probe_map, ledger, report

    @property
    def _most_steps(self) -> int:
        return min(self.order.dim, self.target.max_num_lanczos_steps)

    def run(self, source: OperatorSource, num_examples: int, tolerance: float) -> tuple[Runs, bool]:
        """Check, and ask for more, until both limits' errors but for the subset's are within the tolerance.

        Returns:
            The runs of the last check, and whether it was within the tolerance; False also where the dense Hessian
            is to take over (see `dense_takes_over`).

        Raises:
            ValueError: a product was not finite.
        """
        while True:
            runs, check = self._check(source, num_examples)
            self.checks.append(check)
            self._report(check, self._most_products_left())
            has_both = len(check.limits) == len(LIMITS)
            if has_both and all(_known_part(budget) <= tolerance for budget in check.budgets.values()):
                return runs, True
            if self.gave_up:
                return runs, False
            self.gave_up = self._is_out_of_reach(runs, num_examples, tolerance)
            can_go_on = not has_both if self.gave_up else self._ask_more(check, tolerance)
            if not can_go_on or self.dense_takes_over(num_examples):
                return runs, False

    def dense_takes_over(self, num_examples: int) -> bool:
        """Return whether the dense Hessian is to be computed: where it costs less, or where Lanczos was given up."""
        return self.dense_is_cheaper(num_examples) or (self.gave_up and self.order.dim <= self.target.max_dense_dim)

    def dense_is_cheaper(self, num_examples: int) -> bool:
        """Return whether the dense Hessian over all examples costs less than the next check's runs from their start."""
        dim, next_products = self.order.dim, (self.num_probes + 1) * self.num_lanczos_steps
        share = num_examples / self._ledger.num_all_examples
        is_cheaper = GRADIENTS_PER_BLOCK_PRODUCT * dim <= GRADIENTS_PER_PRODUCT * next_products * share
        return dim <= self.target.max_dense_dim and is_cheaper

    def _ask_more(self, check: Check, tolerance: float) -> bool:
        """Raise probes, steps or both; return whether anything could be raised."""
        before = self.num_probes, self.num_lanczos_steps
        worst_probe = max(budget.probe_standard_error for budget in check.budgets.values())
        truncation = max(budget.truncation for budget in check.budgets.values())
        wanted = math.ceil(self.num_probes * (worst_probe / (_PROBE_SHARE * tolerance)) ** 2)
        if truncation < 4 * tolerance:  # before that, the spectrum is not known well enough to count probes by it
            self.num_probes = min(max(self.num_probes, wanted), self.target.max_num_probes)
        if truncation > math.sqrt(1.0 - _PROBE_SHARE**2) * tolerance:
            self.num_lanczos_steps = min(next_steps(self.num_lanczos_steps), self._most_steps)
        return (self.num_probes, self.num_lanczos_steps) != before

    def _check(self, source: OperatorSource, num_examples: int) -> tuple[Runs, Check]:
        runs = self._runs(source, num_examples)
        if self.num_removed == 0 and self._knows_enough(runs):
            # A short run is enough to see where the long one has to begin.
            self.num_removed = self._count_near(runs, "gaussian_width")
            short = self._removed_run(source, num_examples, min(FIRST_STEPS, self.num_lanczos_steps))
            self.num_removed = self._count_near(replace(runs, removed=short), "statistical_dimension")
            runs = replace(runs, removed=self._removed_run(source, num_examples, self.num_lanczos_steps))
        brackets = self._brackets(runs)
        sharp = brackets.get("statistical_dimension")
        if sharp and self._drift(sharp) > _DRIFT_SHARE * max(self.target.tolerance, sharp.truncation):
            self.num_removed = self._count_near(runs, "statistical_dimension")
            runs = replace(runs, removed=self._removed_run(source, num_examples, self.num_lanczos_steps))
            brackets = self._brackets(runs)
        return runs, self._as_check(brackets, num_examples)

    def _as_check(self, brackets: dict[str, Bracket], num_examples: int) -> Check:
        budgets = {
            name: ErrorBudget(bracket.probe_standard_error, bracket.truncation) for name, bracket in brackets.items()
        }
        sharp = brackets.get("statistical_dimension")
        if sharp:
            truncation = sharp.truncation + self._drift(sharp)
            budgets["statistical_dimension"] = ErrorBudget(sharp.probe_standard_error, truncation)
        return Check(
            num_examples,
            self.num_lanczos_steps,
            self.num_probes,
            self._ledger.num_matvecs,
            self._ledger.gradient_equivalents,
            {name: bracket.middle for name, bracket in brackets.items()},
            budgets,
        )

    def _knows_enough(self, runs: Runs) -> bool:
        """Return whether the spectrum is known well enough to say which weights a run from removed ones is about."""
        if self.order.num_zero_weights == self.order.dim:
            return False
        at_the_end = self.gave_up or self.num_lanczos_steps == self._most_steps
        truncation = runs.bracket("gaussian_width", self.target.loss_tolerance_nats).truncation
        return at_the_end or truncation <= _REMOVED_FROM * self.target.tolerance

    def _brackets(self, runs: Runs) -> dict[str, Bracket]:
        """Return both limits, or the published one alone as long as there is no run from removed weights."""
        has_both = runs.removed is not None or self.order.num_zero_weights == self.order.dim
        return {
            name: runs.bracket(name, self.target.loss_tolerance_nats) for name in (LIMITS if has_both else LIMITS[:1])
        }

    def _drift(self, sharp: Bracket) -> float:
        return _DRIFT * abs(sharp.middle - self.num_removed / self.order.dim) if self.num_removed else 0.0

    def _count_near(self, runs: Runs, name: str) -> int:
        """Return the count at a limit, so that the removed weights are not all zero."""
        return self.order.count_near(runs.middle(name, self.target.loss_tolerance_nats))

    def _runs(self, source: OperatorSource, num_examples: int) -> Runs:
        steps, target = self.num_lanczos_steps, self.target
        probes: list[RunRequest] = [
            ProbeRequest(target.seed, index, target.distribution, steps) for index in range(self.num_probes)
        ]
        removed: list[RunRequest] = [RemovedWeightsRequest(self.num_removed, steps)] if self.num_removed else []
        runs = self._run_all(source, num_examples, probes + removed)
        return Runs(runs[: len(probes)], runs[-1] if removed else None, self.order, target.curvature)

    def _removed_run(self, source: OperatorSource, num_examples: int, num_lanczos_steps: int) -> Tridiagonal:
        return self.removed_runs(source, num_examples, [self.num_removed], num_lanczos_steps)[0]

    def removed_runs(
        self, source: OperatorSource, num_examples: int, counts: Sequence[int], num_lanczos_steps: int
    ) -> list[Tridiagonal]:
        """Return one run per count of removed weights, all counts distinct; entered in the ledger."""
        requests = [RemovedWeightsRequest(count, num_lanczos_steps) for count in counts]
        return self._run_all(source, num_examples, requests)

    def scale(self) -> float:
        """Return c = 2 epsilon / R^2 at the last check's published limit: near which eigenvalues the limits hang on."""
        radius = self.order.radius(self.order.count_near(self.checks[-1].limits["gaussian_width"]))
        return 2.0 * self.target.loss_tolerance_nats / radius**2 if radius else math.inf

    def _is_out_of_reach(self, runs: Runs, num_examples: int, tolerance: float) -> bool:
        """Return whether steps are to be given up; where dim of them can be taken, the last leaves no truncation."""
        truncations = {
            check.num_lanczos_steps: max(budget.truncation for budget in check.budgets.values())
            for check in self.checks
            if check.num_examples == num_examples
        }
        if self._most_steps == self.order.dim or not is_out_of_reach(truncations, tolerance, self._most_steps):
            return False
        return has_many_far_out(runs.probe_measure(), self.scale(), self.order.dim, self._most_steps)

    def _run_all(self, source: OperatorSource, num_examples: int, requests: Sequence[RunRequest]) -> list[Tridiagonal]:
        results = run_requests(source, requests, self._map)
        for request in requests:
            self._ledger.enter(num_examples, request, results[request].tridiagonal)
        return [results[request].tridiagonal for request in requests]

    def _most_products_left(self) -> int:
        return (self.num_probes + 1) * (self._most_steps - self.num_lanczos_steps)


def next_steps(num_lanczos_steps: int) -> int:
    """Return the next number of steps to check at: 16, 24, 32, 48, 64, 96, ...; a third or a half more each time."""
    power = 1 << (num_lanczos_steps.bit_length() - 1)
    return 2 * power if num_lanczos_steps >= power + power // 2 else power + power // 2


def _known_part(budget: ErrorBudget) -> float:
    return math.hypot(budget.probe_standard_error, budget.truncation)
