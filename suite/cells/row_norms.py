"""L1 norms of the Hessian's rows, one per magnitude percentile: does the loss see the weights that LOMP removes?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from suite.cells._analysis import AnalysisConfig, analysed
from suite.cells._context import Context
from suite.cells.spectrum import stored_network
from suite.curvature.rows import SampledRows, sample_row_norms
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 2  # batches are as large as the measured memory plan allows
SHARDED = False
PRIORITY = 4


class Options(Settings):
    """network: the method whose dense reference is measured. num_rows: percentiles; each costs one product."""

    network: str = "lomp"
    num_rows: Annotated[int, Field(ge=1)] = 100


def smoke(options: Options) -> Options:
    """Return options of two rows."""
    return options.model_copy(update={"num_rows": min(options.num_rows, 2)})


class Config(AnalysisConfig):
    """Everything the norms depend on; the weights come from the input cell."""

    seed: int
    num_rows: int
    dtype: str = "float32"


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the rows of one dense network."""
    _, _, total = planner.network(task)
    config = Config(
        **analysed(planner, task),
        seed=seed,
        num_rows=min(options.num_rows, total),
    )
    inputs = {"dense": planner.reference(task, options.network, seed)}
    return planner.add("row_norms", config, inputs, task, f"seed {seed} Hessian rows of {options.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Compute one row per percentile and store norms, diagonal entries and magnitudes."""
    del inputs
    network = stored_network(config.model, config.data, context, config.dtype).load()
    operator = network.hessian(config.dtype)
    rows = sample_row_norms(
        operator,
        network.weights(),
        config.seed,
        num_percentiles=config.num_rows,
        progress=lambda done, total: context.progress(done / total, f"row {done} of {total}"),
    )
    units = {"num_zero_rows": "rows"}
    return Record(
        status="ok" if np.isfinite(rows.norms.l1_norms).all() else "nonfinite",
        metrics={
            name: Metric(value, units.get(name, "nats per squared weight"))
            for name, value in rows.summary().items()
            if np.isfinite(value)
        },
        arrays=row_arrays(rows),
        cost={"matvecs": float(operator.num_matvecs)},
    )


def work(config: Config, sizes: Sizes) -> Work:
    """Count a product for each row."""
    del sizes
    products = Guess.exactly(config.num_rows)
    return Work((), products=products, dtype=config.dtype, disk_bytes=file_bytes(4, 4, 32 * config.num_rows))


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the row of table/row_norms."""
    zero_rows = int(record.metrics["num_zero_rows"].value)
    return {"row_norms": [{"num_rows": config.num_rows, "num_zero_rows": zero_rows}]}


def row_arrays(rows: SampledRows) -> dict[str, np.ndarray]:
    """Return sampled rows as arrays, by growing magnitude of their weights."""
    return {
        "row_index": rows.norms.rows,
        "row_magnitude": rows.magnitudes,
        "row_l1_norm": rows.norms.l1_norms,
        "row_diagonal": rows.norms.diagonal,
    }
