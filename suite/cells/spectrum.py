"""Measure the Hessian spectrum of a trained dense network by stochastic Lanczos quadrature, probes sharded.

With a tolerance (options.limit.tolerance) both limits are searched here, because the search is made of probes, and the
spectrum is the one that they were found from: of the last subset where examples were left out.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from suite.cells._analysis import AnalysisConfig, analysed, limit_options, loss_tolerance
from suite.cells._context import Context
from suite.cells._kept_probes import KeptProbes
from suite.cells._search import Search, fixed_and_chosen, removed_arrays, search_cost, search_metrics
from suite.curvature.probes import Distribution, ProbeRequest
from suite.curvature.quadrature import SpectralMeasure, measure_of_tridiagonals
from suite.curvature.slq import ProbeResult, slq
from suite.datasets import DataSpec
from suite.errors import UserError
from suite.estimate.work import Guess, Sizes, Work, file_bytes
from suite.network import ModelSpec
from suite.networks.sources import StoredNetwork
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Task

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 5  # re-orthogonalised once where that is enough, rows of the basis in blocks
SHARDED = True
PRIORITY = 5
# Of a search to a tolerance, for an estimate alone: most ended with a few runs of some hundred steps, two of 32 is the
# least. Guesses.
_FIRST_STEPS, _LIKELY_STEPS, _LIKELY_RUNS = 32, 192, 5


class Options(Settings):
    """network: the method whose dense reference is measured. On digits, 4 probes of 64 steps came within 0.005.

    num_probes and num_lanczos_steps do not go with options.limit.tolerance, which chooses them.
    """

    network: str = "lomp"
    num_probes: Annotated[int, Field(ge=1)] = 4
    num_lanczos_steps: Annotated[int, Field(ge=1)] = 64
    distribution: Distribution = "rademacher"
    dtype: Literal["float32", "float64"] = "float32"


def smoke(options: Options) -> Options:
    """Return options of a few products."""
    few = {"num_probes": min(options.num_probes, 2), "num_lanczos_steps": min(options.num_lanczos_steps, 2)}
    return options.model_copy(update=few | {"dtype": "float32"})


class Config(AnalysisConfig):
    """Everything the tridiagonals depend on; the weights come from the input cell.

    Either num_probes and num_lanczos_steps are given, or a search.
    """

    seed: int
    num_probes: int | None
    num_lanczos_steps: int | None
    distribution: Distribution
    dtype: Literal["float32", "float64"]
    search: Search | None = None

    @model_serializer(mode="wrap")
    def _without_search(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a search that is none: cells of fixed effort keep the keys of before there was one."""
        values: dict[str, Any] = handler(self)
        return values if self.search is not None else {name: values[name] for name in values if name != "search"}


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the spectrum of one dense network, with a fixed effort or to the tolerance of `limit`.

    Raises:
        UserError: an option fixes what the tolerance chooses.
    """
    _, _, total = planner.network(task)
    search = _search(planner, task, options)
    config = Config(
        **analysed(planner, task),
        seed=seed,
        num_probes=options.num_probes if search is None else None,
        num_lanczos_steps=min(options.num_lanczos_steps, total) if search is None else None,
        distribution=options.distribution,
        dtype=options.dtype,
        search=search,
    )
    dense = planner.reference(task, options.network, seed)
    return planner.add("spectrum", config, {"dense": dense}, task, f"seed {seed} spectrum of {options.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Run all probes, or the search, through the context's map and store their tridiagonals."""
    del inputs  # the workers load the network themselves, by path
    source = stored_network(config.model, config.data, context, config.dtype)
    if config.search is not None:
        return _searched(config.search, source, config, context)
    assert config.num_probes is not None
    assert config.num_lanczos_steps is not None
    requests = [
        ProbeRequest(config.seed, index, config.distribution, config.num_lanczos_steps)
        for index in range(config.num_probes)
    ]
    results = slq(source, requests, map=KeptProbes(context.probe_map, context.trainings), advance=context.progress)
    arrays = tridiagonal_arrays(results)
    finite = all(result.tridiagonal.status != "nonfinite" for result in results)
    return Record(
        status="ok" if finite else "nonfinite",
        metrics=_metrics(arrays) if finite else {},
        arrays=arrays,
        cost={"matvecs": float(arrays["num_steps"].sum())},
        timings={
            "probes_s": sum(result.seconds for result in results),
            "restarts": float(sum(result.restarts for result in results)),
            "reissued": float(sum(result.reissued for result in results)),
        },
    )


def _search(planner: "Planner", task: Task, options: Options) -> Search | None:
    limit = limit_options(planner, task)
    if limit.tolerance is None:
        return None
    for name in ("num_probes", "num_lanczos_steps"):
        if name in options.model_fields_set:
            line = fixed_and_chosen(f"options.spectrum.{name}", getattr(options, name), limit.tolerance)
            raise UserError(line)
    return Search(
        tolerance=limit.tolerance,
        loss_tolerance_nats=loss_tolerance(planner, task, limit),
        curvature=limit.curvature,
    )


def _searched(search: Search, source: StoredNetwork, config: Config, context: Context) -> Record:
    found, target = search.run(source, config.seed, config.distribution, context)
    arrays = tridiagonal_arrays(found.probes)
    return Record(
        metrics=_metrics(arrays) | search_metrics(found, target),
        arrays=arrays | removed_arrays(found),
        cost=search_cost(found),
        timings={
            "probes_s": found.seconds,
            "restarts": float(found.num_restarts),
            "reissued": float(found.num_reissued),
        },
    )


def work(config: Config, sizes: Sizes) -> Work:
    """Count the products of the probes; those of a search are a guess, from its first check to where it gives up."""
    if config.search is None:
        assert config.num_probes is not None
        assert config.num_lanczos_steps is not None
        steps, products = config.num_lanczos_steps, Guess.exactly(config.num_probes * config.num_lanczos_steps)
        return Work(
            (), products=products, dtype=config.dtype, num_rows=steps, disk_bytes=file_bytes(6, 8, 16 * products[1])
        )
    most = min(config.search.max_num_lanczos_steps, sizes.num_prunable)
    first, likely = (min(steps, most) for steps in (_FIRST_STEPS, _LIKELY_STEPS))
    products = Guess(2 * first, _LIKELY_RUNS * likely, (config.search.max_num_probes + 1) * most)
    evaluated = Guess.exactly(0 if config.search.loss_tolerance_nats else sizes.num_train)
    disk_bytes = file_bytes(10, 40, 16 * products.likely)
    return Work((), evaluated, products, config.dtype, num_rows=likely, disk_bytes=disk_bytes)


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the row of table/spectra."""
    del config, record
    return {"spectra": [{"source": "slq"}]}


def stored_network(model: ModelSpec, data: DataSpec, context: Context, dtype: str) -> StoredNetwork:
    """Return the source of the network in the input cell "dense"."""
    cell, path = context.input_paths["dense"]
    return StoredNetwork(model, cell, path.parent.parent, context.places["data"], data.sha256, context.device, dtype)


def tridiagonal_arrays(results: list[ProbeResult]) -> dict[str, np.ndarray]:
    """Return the tridiagonals of all probes, padded with zeros to the longest; num_steps gives the valid lengths."""
    longest = max(result.tridiagonal.num_lanczos_steps for result in results)
    diagonal, off_diagonal = np.zeros((len(results), longest)), np.zeros((len(results), max(0, longest - 1)))
    for row, result in enumerate(results):
        diagonal[row, : len(result.tridiagonal.diagonal)] = result.tridiagonal.diagonal
        off_diagonal[row, : len(result.tridiagonal.off_diagonal)] = result.tridiagonal.off_diagonal
    return {
        "diagonal": diagonal,
        "off_diagonal": off_diagonal,
        "num_steps": np.array([result.tridiagonal.num_lanczos_steps for result in results]),
        "probe_index": np.array([result.index for result in results]),
        "probe_seed": np.array([result.seed for result in results]),
        "residual_norm": np.array([result.tridiagonal.residual_norm for result in results]),
    }


def stored_measure(arrays: Mapping[str, np.ndarray]) -> SpectralMeasure:
    """Return the spectral measure of the tridiagonals that tridiagonal_arrays stored."""
    lengths = arrays["num_steps"]
    pairs = zip(arrays["diagonal"], arrays["off_diagonal"], lengths, strict=True)
    return measure_of_tridiagonals((diagonal[:k], off_diagonal[: k - 1]) for diagonal, off_diagonal, k in pairs)


def finite_measure(record: Record) -> SpectralMeasure:
    """Return the spectral measure of a spectrum cell's record.

    Raises:
        UserError: a product was not finite.
    """
    if record.status != "ok":
        raise UserError(
            f"The spectrum has status {record.status!r}: a product was not finite. "
            "Likely the weights diverged in training; lower the recipe's learning_rate."
        )
    return stored_measure(record.arrays)


def _metrics(arrays: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    measure = stored_measure(arrays)
    mean, error = measure.integrate(lambda nodes: nodes)
    nodes = [rule.nodes for rule in measure.quadratures]
    unit = "nats per squared weight"
    return {
        "eigenvalue_max": Metric(max(float(values.max()) for values in nodes), unit),
        "eigenvalue_min": Metric(min(float(values.min()) for values in nodes), unit),
        "eigenvalue_mean": Metric(mean, unit),
        "eigenvalue_mean_standard_error": Metric(error, unit),
    }
