"""What a limit computed to a tolerance says about its error: the parts, the effort, and every check on the way."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorBudget:
    """The parts of a limit's error, in sparsity.

    Attributes:
        probe_standard_error: one standard deviation over random probes, from the spectrum itself; 0 without probes.
        truncation: for too few Lanczos steps; infinite where it cannot be told yet. A width that held in
            measurements, no theorem: see suite.limits.bracket.
        subset_bias: for examples left out; 0 with all of them, infinite where it cannot be told yet.
        epsilon_sensitivity: half the way from the limit at half the loss tolerance to the one at its double. How much
            hangs on the choice of loss tolerance: no error of the computation, hence no part of `total`.
    """

    probe_standard_error: float
    truncation: float
    subset_bias: float = 0.0
    epsilon_sensitivity: float = math.nan

    @property
    def total(self) -> float:
        """Return the root sum of squares of the first three."""
        return math.hypot(self.probe_standard_error, self.truncation, self.subset_bias)

    def as_json(self) -> dict[str, float | None]:
        """Return the parts and their total; None where one is not known."""
        values = {**asdict(self), "total": self.total}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Check:
    """One look at the limits on the way to a tolerance.

    Attributes:
        num_examples: of the training split that the Hessian is a mean over.
        num_lanczos_steps: of every run; 0 for the dense Hessian, also while it is assembled.
        num_probes: random ones; 0 for the dense Hessian.
        num_matvecs: Hessian-vector products paid for so far, earlier subsets included.
        gradient_equivalents: all work so far in gradients of the whole training split; a product alone counts 2, one
            of a block 1.6 (see suite.limits.adaptive).
        limits: limit -> estimate, in sparsity; none while a dense Hessian is assembled that no check went before.
        budgets: limit -> its error budget at this check.
    """

    num_examples: int
    num_lanczos_steps: int
    num_probes: int
    num_matvecs: int
    gradient_equivalents: float
    limits: dict[str, float]
    budgets: dict[str, ErrorBudget]

    @property
    def total(self) -> float:
        """Return the larger of the limits' total errors; infinite where there is no limit yet."""
        return max((budget.total for budget in self.budgets.values()), default=math.inf)

    def as_json(self) -> dict[str, Any]:
        """Return the check as JSON-able values."""
        counts = ("num_examples", "num_lanczos_steps", "num_probes", "num_matvecs", "gradient_equivalents")
        parts = {name: {"sparsity_limit": self.limits[name], **self.budgets[name].as_json()} for name in self.limits}
        return {name: getattr(self, name) for name in counts} | parts
