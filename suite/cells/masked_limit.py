"""The limit of the actual magnitude mask in the quadratic model, beside `limit`: conjugate gradients, nothing random.

Tolerance: that of `limit`. It estimates the limit of the Hessian's positive part on the stand-in of
suite/curvature/convexified.py, which says how far off that was; the analysis `dense_hessian` has it exactly.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from suite.cells._analysis import AnalysisConfig, analysed, limit_options, loss_tolerance
from suite.cells._context import Context
from suite.cells._predictions import prediction_metrics, prediction_rows
from suite.cells.spectrum import finite_measure, stored_network
from suite.curvature.convexified import NUM_LANCZOS_STEPS
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.limits.estimate import LimitEstimate
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.masked_quadratic import MaskedQuadraticLimit
from suite.limits.predict import Prediction
from suite.limits.removal import MagnitudeOrder
from suite.limits.tolerance import SCALES
from suite.measure.masked_limits import MAX_MATVECS_PER_SOLVE, RESOLUTION, masked_limits
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 6  # among equal magnitudes the higher index goes first, as in every mask
SHARDED = False
PRIORITY = 4
SMOKE_MAX_WEIGHTS = 1_000_000  # it prepares its matrix by products, however few it solves with
_PRODUCTS = Guess(400, 1000, 3000)  # of all three searches; measured on up to 4,464 weights, for others a guess


class Options(Settings):
    """network: the method whose dense reference is analysed. A solve ends after max_matvecs_per_solve products."""

    network: str = "lomp"
    resolution: Annotated[float, Field(ge=0, le=1)] = RESOLUTION  # of the search, in sparsity
    max_matvecs_per_solve: Annotated[int, Field(ge=3)] = MAX_MATVECS_PER_SOLVE


def smoke(options: Options) -> Options:
    """Return options of one solve of a few products."""
    return options.model_copy(update={"resolution": 1.0, "max_matvecs_per_solve": 3})


class Config(AnalysisConfig):
    """Everything the limit depends on; weights and spectrum come from the input cells."""

    loss_tolerance_nats: float | None
    resolution: float
    max_matvecs_per_solve: int
    dtype: str


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the limit of one dense network's magnitude masks; the spectrum gives the guess that the search starts at."""
    limit = limit_options(planner, task)
    spectrum = planner.analysis_cell(task, "spectrum", seed, {"network": options.network})
    config = Config(
        **analysed(planner, task),
        loss_tolerance_nats=loss_tolerance(planner, task, limit),
        resolution=options.resolution,
        max_matvecs_per_solve=options.max_matvecs_per_solve,
        dtype=spectrum.config["dtype"],
    )
    inputs = {"dense": planner.reference(task, options.network, seed), "spectrum": spectrum}
    return planner.add("masked_limit", config, inputs, task, f"seed {seed} masked limit of {options.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Search the limit at three tolerances, each from the published predictor's."""
    measure = finite_measure(inputs["spectrum"])
    network = stored_network(config.model, config.data, context, config.dtype).load()
    tolerance = config.loss_tolerance_nats or network.loss_tolerance_nats()
    order = MagnitudeOrder.of(network.weights())
    guesses = {
        factor: gaussian_width_limit(measure, order, factor * tolerance, curvature="abs").num_removed
        for factor in SCALES
    }
    operator = network.convexified(
        config.dtype,
        progress=lambda done, total: context.progress(
            0.1 * done / total, f"preparing the masks' matrix: step {done} of {total}"
        ),
    )
    limits = masked_limits(
        operator,
        order,
        tolerance,
        guesses,
        resolution=config.resolution,
        max_matvecs_per_solve=config.max_matvecs_per_solve,
        progress=lambda done, doing: context.progress(0.1 + 0.9 * done, doing),
    )
    metrics = prediction_metrics([_prediction(*each) for each in limits.items()], "conjugate_gradients")
    metrics["loss_tolerance_nats"] = Metric(tolerance, "nats")
    cut = sum(solve.status not in ("converged", "feasible") for limit in limits.values() for solve in limit.solves)
    metrics["num_solves"] = Metric(sum(len(limit.solves) for limit in limits.values()), "solves")
    metrics["num_solves_cut_short"] = Metric(cut, "solves")
    return Record(metrics=metrics, cost={"matvecs": float(operator.num_matvecs)})


def work(config: Config, sizes: Sizes) -> Work:
    """Count the products of conjugate gradients: as many as elsewhere."""
    evaluated = Guess.exactly(0 if config.loss_tolerance_nats else sizes.num_train)
    return Work((), evaluated, _PRODUCTS, config.dtype, num_rows=NUM_LANCZOS_STEPS, disk_bytes=file_bytes(0, 18, 0))


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of table/limits, at three tolerances."""
    del config
    return {"limits": prediction_rows(record, "conjugate_gradients", "positive")}


def _prediction(factor: float, limit: MaskedQuadraticLimit) -> Prediction:
    """Return the limit as all predictions are stored: its bounds are the search's bracket, and no probe is drawn."""
    estimate = LimitEstimate(
        sparsity_limit=limit.sparsity_limit,
        lower=limit.lower,
        upper=limit.upper,
        probe_standard_error=math.nan,
        num_removed=limit.num_removed,
        loss_tolerance_nats=limit.loss_tolerance_nats,
        curvature="positive",
    )
    return Prediction("masked_quadratic", factor, estimate)
