"""The search for both limits to a tolerance as a cell runs it: what it is asked, and what it leaves in the record."""

from typing import Any

import numpy as np

from suite.cells._context import Context
from suite.cells._predictions import budget_metrics, prediction_metrics
from suite.curvature.probes import Distribution, RemovedWeightsRequest
from suite.limits.adaptive import Target
from suite.limits.curvature_treatment import Curvature
from suite.measure.tolerance import Found, loss_tolerance_of, search_to_tolerance
from suite.networks.sources import HeldNetwork, NetworkSource
from suite.record import Metric, Record
from suite.strict import Settings

SEARCH_VERSION = 2  # raise when the search asks for, or makes of its runs, something else
_SEARCH_METRICS = ("slq/", "budget/", "search/", "loss_tolerance_nats")


class Search(Settings):
    """What steps, probes and examples are chosen for.

    The dense Hessian never takes over: a study has the analysis `dense_hessian` for that, which is the oracle of this.
    """

    tolerance: float
    loss_tolerance_nats: float | None
    curvature: Curvature
    max_num_lanczos_steps: int = Target.max_num_lanczos_steps
    max_num_probes: int = Target.max_num_probes
    version: int = SEARCH_VERSION

    def run(
        self, source: NetworkSource, seed: int, distribution: Distribution, context: Context
    ) -> tuple[Found, Target]:
        """Search, on the context's workers and from its checkpoint on.

        Raises:
            UserError: the network has no fixed Hessian, its batch losses have no spread, a product is not finite.
            FileRefused: the checkpoint is damaged. OSError: it cannot be written.
        """
        network = source.load()
        HeldNetwork(source, network).build()  # refuses what has no fixed Hessian before any worker starts
        target = Target(
            self.tolerance,
            loss_tolerance_of(network, self.loss_tolerance_nats),
            self.curvature,
            seed,
            distribution,
            self.max_num_lanczos_steps,
            self.max_num_probes,
            max_dense_dim=0,
        )
        return (
            search_to_tolerance(source, network, target, context.probe_map, context.progress, context.checkpoint),
            target,
        )


def fixed_and_chosen(option: str, value: Any, tolerance: float) -> str:
    """Return the one line for an option that fixes what a tolerance chooses."""
    return (
        f"{option} = {value} fixes what options.limit.tolerance = {tolerance} chooses. "
        f"Expected: one of the two; leave {option} out."
    )


def search_metrics(found: Found, target: Target) -> dict[str, Metric]:
    """Return limits, error budgets and effort as metrics; whether it converged as 1 or 0."""
    limits, last = found.limits, found.limits.checks[-1]
    effort = {
        "tolerance": Metric(target.tolerance, "1"),
        "converged": Metric(float(limits.converged), "1"),
        "num_examples": Metric(last.num_examples, "examples"),
        "num_probes": Metric(last.num_probes, "probes"),
        "num_lanczos_steps": Metric(last.num_lanczos_steps, "steps"),
    }
    return {
        **prediction_metrics(limits.predictions, "slq"),
        **budget_metrics(limits.budgets),
        **{f"search/{name}": metric for name, metric in effort.items()},
        "loss_tolerance_nats": Metric(target.loss_tolerance_nats, "nats"),
    }


def search_metrics_of(record: Record) -> dict[str, Metric]:
    """Return what search_metrics wrote into a record, for a record that is built on it."""
    return {name: metric for name, metric in record.metrics.items() if name.startswith(_SEARCH_METRICS)}


def search_cost(found: Found) -> dict[str, float]:
    """Return the products over all subsets, and all work in gradients of the whole training split."""
    last = found.limits.checks[-1]
    return {"matvecs": float(last.num_matvecs), "gradient_equivalents": last.gradient_equivalents}


def removed_arrays(found: Found) -> dict[str, np.ndarray]:
    """Return the tridiagonal of the run from removed weights, under removed/; nothing where there was none."""
    if found.removed is None or not isinstance(found.removed.request, RemovedWeightsRequest):
        return {}
    run = found.removed.tridiagonal
    return {
        "removed/diagonal": run.diagonal,
        "removed/off_diagonal": run.off_diagonal,
        "removed/residual_norm": np.array(run.residual_norm),
        "removed/start_norm": np.array(run.start_norm),
        "removed/num_removed": np.array(found.removed.request.num_removed),
    }
