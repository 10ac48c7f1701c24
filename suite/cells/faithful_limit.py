"""The published predictor with the published numerics, beside `limit`: one probe, a gridded density, whole radii.

What it is held against, and why it is not to be trusted for networks of a wide spectrum, stands in
suite/limits/faithful.py. Tolerance: that of `limit`, by default the published one.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suite.cells._analysis import AnalysisConfig, analysed, limit_options, loss_tolerance
from suite.cells._context import Context
from suite.cells._predictions import prediction_metrics, prediction_rows
from suite.cells.row_norms import row_arrays
from suite.cells.spectrum import stored_network, tridiagonal_arrays
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.limits.estimate import LimitEstimate
from suite.limits.faithful import NUM_LANCZOS_STEPS, NUM_ROWS, FaithfulLimit
from suite.limits.predict import Prediction
from suite.measure.published_recipe import published_recipe
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 5  # re-orthogonalised once where that is enough, rows of the basis in blocks
SHARDED = False
PRIORITY = 4
SMOKE_MAX_WEIGHTS = 100_000  # its 228 products are fixed


class Options(Settings):
    """network: the method whose dense reference is analysed."""

    network: str = "lomp"


class Config(AnalysisConfig):
    """Everything the limit depends on; the weights come from the input cell."""

    seed: int
    loss_tolerance_nats: float | None
    num_lanczos_steps: int
    dtype: str = "float32"


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the limit of one dense network; it needs no `spectrum`, because its one probe takes 128 steps."""
    _, _, total = planner.network(task)
    limit = limit_options(planner, task)
    config = Config(
        **analysed(planner, task),
        seed=seed,
        loss_tolerance_nats=loss_tolerance(planner, task, limit),
        num_lanczos_steps=min(NUM_LANCZOS_STEPS, total),
    )
    inputs = {"dense": planner.reference(task, options.network, seed)}
    return planner.add(
        "faithful_limit", config, inputs, task, f"seed {seed} faithful limit of {options.network}'s dense"
    )


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Follow the published recipe and store its probe, its rows and its limits."""
    del inputs
    network = stored_network(config.model, config.data, context, config.dtype).load()
    tolerance = config.loss_tolerance_nats or network.loss_tolerance_nats()
    operator = network.hessian(config.dtype)
    found = published_recipe(
        network, operator, tolerance, config.seed, config.num_lanczos_steps, progress=context.progress
    )
    limits, dim = found.limits, operator.dim
    metrics = prediction_metrics([_prediction(factor, limit, dim) for factor, limit in limits.items()], "slq")
    metrics["loss_tolerance_nats"] = Metric(tolerance, "nats")
    metrics["num_flat_rows"] = Metric(found.num_flat_rows, "rows")
    return Record(
        metrics=metrics,
        curves={"radius": limits[1.0].radii, "fraction": limits[1.0].fractions},
        arrays=tridiagonal_arrays([found.result]) | (row_arrays(found.rows) if found.rows else {}),
        cost={"matvecs": float(operator.num_matvecs)},
        timings={"probes_s": found.result.seconds},
    )


def work(config: Config, sizes: Sizes) -> Work:
    """Count one probe, and the rows that networks with convolutions are looked at by."""
    steps = config.num_lanczos_steps
    evaluated = Guess.exactly(0 if config.loss_tolerance_nats else sizes.num_train)
    products = Guess(steps, steps + min(NUM_ROWS, sizes.num_prunable), steps + min(NUM_ROWS, sizes.num_prunable))
    return Work((), evaluated, products, config.dtype, num_rows=steps, disk_bytes=file_bytes(12, 8, 16 * products[2]))


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of table/limits, at three tolerances."""
    del config
    return {"limits": prediction_rows(record, "slq", "abs")}


def _prediction(factor: float, limit: FaithfulLimit, dim: int) -> Prediction:
    """Return the limit as all predictions are stored; it comes without bounds, and one probe has no spread."""
    estimate = LimitEstimate(
        sparsity_limit=limit.sparsity_limit,
        lower=math.nan,
        upper=math.nan,
        probe_standard_error=math.nan,
        num_removed=math.ceil(limit.sparsity_limit * dim),
        loss_tolerance_nats=limit.loss_tolerance_nats,
        curvature="abs",
    )
    return Prediction("gaussian_width_faithful", factor, estimate)
