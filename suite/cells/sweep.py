"""Loss and accuracy of a dense network over many sparsities, pruned by magnitude and not trained on: a paper's curve.

Points are evaluated where the curve bends and interpolated between; every point says which of the two it is.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from suite.cells._analysis import AnalysisConfig, analysed
from suite.cells._context import Context
from suite.cells.spectrum import stored_network
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.limits.sweep import COARSE_INTERVALS, Sweep
from suite.measure.sweep import magnitude_sweep
from suite.network import prunable_weights
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 1
SHARDED = False
PRIORITY = 4
_LEAST_EVALUATIONS, _NUM_CURVES = COARSE_INTERVALS + 1, 9


class Options(Settings):
    """Which network, how many sparsities from 0 up, and how well those between the evaluated ones must be known.

    The tolerances are of the estimated error of interpolation; max_evaluations ends the search for them.
    """

    network: str = "lomp"  # the method whose dense reference is pruned
    num_sparsities: Annotated[int, Field(ge=2)] = 1000
    accuracy_tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.005
    loss_tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02  # as a fraction of the loss
    max_evaluations: Annotated[int, Field(ge=2)] = 90


def smoke(options: Options) -> Options:
    """Return options of a few evaluations."""
    return options.model_copy(update={"num_sparsities": min(options.num_sparsities, 8), "max_evaluations": 4})


class Config(AnalysisConfig):
    """Everything the curve depends on; the weights come from the input cell."""

    num_sparsities: int
    accuracy_tolerance: float
    loss_tolerance: float
    max_evaluations: int
    dtype: str = "float32"


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the curve of one dense network."""
    config = Config(
        **analysed(planner, task),
        num_sparsities=options.num_sparsities,
        accuracy_tolerance=options.accuracy_tolerance,
        loss_tolerance=options.loss_tolerance,
        max_evaluations=options.max_evaluations,
    )
    inputs = {"dense": planner.reference(task, options.network, seed)}
    return planner.add("sweep", config, inputs, task, f"seed {seed} sweep of {options.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Evaluate one network in memory, pruned in place, where the curve bends; store all points."""
    del inputs
    network = stored_network(config.model, config.data, context, config.dtype).load()
    curve = magnitude_sweep(
        network,
        num_sparsities=config.num_sparsities,
        accuracy_tolerance=config.accuracy_tolerance,
        loss_tolerance=config.loss_tolerance,
        max_evaluations=config.max_evaluations,
        progress=context.progress,
    )
    num_prunable = sum(weight.numel() for weight in prunable_weights(network.model).values())
    finite = all(np.isfinite(values).all() for values in curve.values.values())
    return Record(
        status="ok" if finite else "nonfinite",
        metrics=_metrics(curve) if finite else {},
        curves={
            "sparsity": np.arange(config.num_sparsities) / config.num_sparsities,
            "num_kept": num_prunable - curve.num_removed,
            "evaluated": curve.evaluated,
            **curve.values,
        },
        cost={"evaluations": float(curve.num_evaluations)},
    )


def work(config: Config, sizes: Sizes) -> Work:
    """Count evaluations of every split; how many the curve's bends need is known by its range."""
    most = min(config.max_evaluations, config.num_sparsities)
    evaluations = Guess(min(_LEAST_EVALUATIONS, most), most, most)
    disk_bytes = file_bytes(_NUM_CURVES, 4, 3 * config.num_sparsities * (_NUM_CURVES - 1))  # of 8: a guess
    return Work((), evaluations.times(sizes.num_examples), disk_bytes=disk_bytes)


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the row of table/sweeps."""
    num_evaluated = int(record.curves["evaluated"].sum())
    return {"sweeps": [{"num_sparsities": config.num_sparsities, "num_evaluated": num_evaluated}]}


def _metrics(curve: Sweep) -> dict[str, Metric]:
    """Return how far the interpolated points can be believed."""
    steps = [step for name, step in curve.largest_steps.items() if name.endswith("accuracy")]
    return {
        "num_evaluations": Metric(curve.num_evaluations, "evaluations"),
        "converged": Metric(float(curve.is_within_tolerance), "1"),
        "estimated_error_over_tolerance": Metric(max(curve.estimated_errors.values()), "1", "lower"),
        "largest_accuracy_step": Metric(max(steps), "1", "lower"),
    }
