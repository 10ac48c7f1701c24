"""The oracle for small networks: the whole Hessian in float64, all its eigenvalues, and all limits from them.

Cost: one product per weight and a full eigendecomposition; refused above max_dim weights.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from suite.cells._analysis import AnalysisConfig, analysed, limit_options, loss_tolerance
from suite.cells._context import Context
from suite.cells._predictions import prediction_metrics, prediction_rows
from suite.cells.spectrum import stored_network
from suite.curvature.dense import MAX_DIM, dense_hessian, eigendecomposition
from suite.curvature.quadrature import atoms
from suite.errors import UserError
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.limits.curvature_treatment import Curvature
from suite.limits.exact import exact_delta_measure
from suite.limits.exact_masks import exact_masked_limits
from suite.limits.predict import Prediction, predict
from suite.limits.removal import MagnitudeOrder
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 5  # among equal magnitudes the higher index goes first, as in every mask
SHARDED = False
PRIORITY = 10  # the longest cell of a small study: start it as soon as its network is there
SMOKE_MAX_WEIGHTS = 2000  # its cost grows with their third power


class Options(Settings):
    """Network, tolerance and curvature are those of `limit`, which this is the oracle of."""

    max_dim: Annotated[int, Field(ge=1)] = MAX_DIM


class Config(AnalysisConfig):
    """Everything the eigenvalues and the exact limits depend on; the weights come from the input cell."""

    loss_tolerance_nats: float | None
    curvature: Curvature


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the dense Hessian of the network that `limit` analyses.

    Raises:
        UserError: the network has more weights than max_dim.
    """
    _, _, total = planner.network(task)
    if total > options.max_dim:
        raise UserError(
            f"The analysis dense_hessian of task {task.name} needs a {total} x {total} matrix. Expected: at most "
            f"{options.max_dim} weights (options.dense_hessian.max_dim). Leave it out: spectrum needs no matrix."
        )
    limit = limit_options(planner, task)
    config = Config(
        **analysed(planner, task),
        loss_tolerance_nats=loss_tolerance(planner, task, limit),
        curvature=limit.curvature,
    )
    inputs = {"dense": planner.reference(task, limit.network, seed)}
    return planner.add("dense_hessian", config, inputs, task, f"seed {seed} dense Hessian of {limit.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Assemble and diagonalise the Hessian in float64; store eigenvalues and exact limits."""
    del inputs
    network = stored_network(config.model, config.data, context, "float64").load()
    order = MagnitudeOrder.of(network.weights())
    tolerance = config.loss_tolerance_nats or network.loss_tolerance_nats()
    operator = network.hessian("float64")
    hessian = dense_hessian(
        operator,
        max_dim=operator.dim,
        progress=lambda done, total: context.progress(0.5 * done / total, f"column {done} of {total}"),
    )
    context.progress(0.5, "eigendecomposition")
    spectrum = eigendecomposition(hessian, max_dim=operator.dim)
    del hessian
    eigenvalues = spectrum.eigenvalues.cpu().numpy()
    delta_measure = exact_delta_measure(eigenvalues, spectrum.eigenvectors.cpu().numpy(), order)
    context.progress(0.95, "exact limits")
    predictions = predict(atoms(eigenvalues), order, tolerance, delta_measure, config.curvature, resolution=0.0)
    masks = exact_masked_limits(spectrum.eigenvalues, spectrum.eigenvectors, order, predictions)
    predictions += [Prediction("masked_quadratic", *each) for each in masks.items()]
    metrics = prediction_metrics(predictions, "dense_hessian")
    metrics["loss_tolerance_nats"] = Metric(tolerance, "nats")
    metrics["num_zero_rows"] = Metric(spectrum.num_zero_rows, "weights")
    return Record(metrics=metrics, arrays={"eigenvalues": eigenvalues}, cost={"matvecs": float(operator.num_matvecs)})


def work(config: Config, sizes: Sizes) -> Work:
    """Count a product for each weight, fewer where rows are zero, and the eigendecomposition."""
    dim = sizes.num_prunable
    evaluated = Guess.exactly(0 if config.loss_tolerance_nats else sizes.num_train)
    products = Guess(0.5 * dim, dim + 1, dim + 1)
    disk_bytes = file_bytes(1, 36, 7.6 * dim)
    return Work((), evaluated, products, "float64", matrix_dim=dim, disk_bytes=disk_bytes)


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the exact limits and the spectrum's row."""
    rows = prediction_rows(record, "dense_hessian", config.curvature)
    return {
        "limits": [row | ({"curvature": "positive"} if row["limit"] == "masked_quadratic" else {}) for row in rows],
        "spectra": [{"source": "dense_hessian"}],
    }
