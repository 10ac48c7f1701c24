"""What the analyses of one network share: how their configuration begins, and the tolerance of the loss."""

from typing import TYPE_CHECKING, Any, cast

from suite.datasets import DataSpec
from suite.errors import UserError
from suite.extensions import load
from suite.limits.tolerance import BATCH_SIZE
from suite.network import ModelSpec
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.cells.limit import Options as LimitOptions
    from suite.planner import Planner


class AnalysisConfig(Settings):
    """What every analysis depends on, beside options of its own and the weights, which come from the input cell."""

    model: ModelSpec
    data: DataSpec
    threads: int


def analysed(planner: "Planner", task: Task) -> dict[str, Any]:
    """Return the values of an AnalysisConfig for a task."""
    located, spec, _ = planner.network(task)
    return {"model": spec, "data": located.spec, "threads": task.threads}


def limit_options(planner: "Planner", task: Task) -> "LimitOptions":
    """Return the checked options of `limit`, whose network, tolerance and curvature other analyses take over.

    Raises:
        UserError: an unknown option, or a value that breaks a rule.
    """
    return cast("LimitOptions", planner.options(task, "limit", load("suite.cells", "limit", "analysis")))


def loss_tolerance(planner: "Planner", task: Task, options: "LimitOptions") -> float | None:
    """Return the tolerance of the loss in nats; None: the spread of batch losses, once there is a network.

    Raises:
        UserError: there will be none, for all training examples make one batch; said before anything is trained.
    """
    given, num_train = options.loss_tolerance_nats, planner.network(task)[0].num_train
    if given is None and num_train <= BATCH_SIZE:
        raise UserError(
            f"The {num_train} training examples of task {task.name} make one batch of {BATCH_SIZE}; its loss has no "
            "spread for the limits' tolerance. Give loss_tolerance_nats under [options.limit]."
        )
    return given
