"""Predict the sparsity limits of a trained dense network from its spectrum, and measure them by pruning it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from suite.cells._analysis import AnalysisConfig, analysed, loss_tolerance
from suite.cells._context import Context
from suite.cells._predictions import NOT_DEFINED, prediction_metrics, prediction_rows
from suite.cells._search import fixed_and_chosen, search_metrics_of
from suite.cells.spectrum import finite_measure, stored_network
from suite.estimate.work import Guess, Sizes, Work, file_bytes, training_work
from suite.limits.curvature_treatment import Curvature
from suite.limits.measured import MeasuredLimit, coarse_to_fine
from suite.limits.predict import lanczos_delta_measure, predict
from suite.limits.removal import MagnitudeOrder, num_removed
from suite.networks.loaded import Network
from suite.problem import evaluate
from suite.pruning.masks import Masks
from suite.pruning.nested import NestedMagnitudeMasks
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Recipe, Task
from suite.training.data_parallel import Ranks
from suite.training.loop import VERSION as TRAINING_VERSION
from suite.training.loop import train
from suite.training.schedules import lasting

if TYPE_CHECKING:
    from suite.plan import Cell
    from suite.planner import Planner

VERSION = 6  # among equal magnitudes the higher index goes first, as in every mask
SHARDED = False
PRIORITY = 5
# Evaluations of both criteria on one curve: 34 on a monotone one, 47 on digits. Runs from removed weights at three loss
# tolerances: 11 or 12 on digits.
_EVALUATIONS, _REMOVED_RUNS = (34.0, 47.0), Guess(6, 12, 24)


class Options(Settings):
    """What is predicted, and how the measured limits are searched.

    With a tolerance the spectrum cell searches both predictions, and what needs the spectrum needs that cell.
    """

    network: str = "lomp"  # the method whose dense reference is analysed
    loss_tolerance_nats: Annotated[float, Field(gt=0)] | None = None  # None: standard deviation of batch losses
    curvature: Curvature = "abs"  # "abs" is the paper's choice
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = (
        None  # error of a prediction, in sparsity; None: fixed effort
    )
    num_lanczos_steps: Annotated[int, Field(ge=1)] = 64  # of each run from the removed weights
    fine_tune_epochs: Annotated[int, Field(ge=1)] = 30  # per evaluation of the fine_tuned limit, see `lasting`
    accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005  # allowed on validation, by the accuracy criterion
    max_evaluations: Annotated[int, Field(ge=12)] = 60
    resolution: Annotated[float, Field(gt=0, lt=1)] = 1e-4  # in sparsity, of a search at a fixed effort

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.tolerance is not None and "num_lanczos_steps" in self.model_fields_set:
            raise ValueError(fixed_and_chosen("num_lanczos_steps", self.num_lanczos_steps, self.tolerance))
        return self


def smoke(options: Options) -> Options:
    """Return options of a fixed effort, by which everything is feasible: then three evaluations end each search.

    With all weights gone the loss is that of a uniform guess, at most 14 nats.
    """
    fixed = {"tolerance": None, "loss_tolerance_nats": 20.0, "accuracy_drop": 1.0}
    few = {
        "num_lanczos_steps": min(options.num_lanczos_steps, 2),
        "fine_tune_epochs": 1,
        "max_evaluations": 12,
        "resolution": 0.25,
    }
    return options.model_copy(update=fixed | few)


class Config(AnalysisConfig):
    """Everything the limits depend on; weights and spectrum come from the input cells.

    num_lanczos_steps: None where the input cell "spectrum" holds the predictions.
    """

    seed: int
    loss_tolerance_nats: float | None
    curvature: Curvature
    num_lanczos_steps: int | None
    fine_tune_recipe: Recipe
    accuracy_drop: float
    max_evaluations: int
    resolution: float
    dtype: str
    training_version: int = TRAINING_VERSION


def plan(planner: "Planner", task: Task, seed: int, options: Options) -> "Cell":
    """Plan the limits of one dense network, and the spectrum that they need."""
    _, _, total = planner.network(task)
    spectrum = planner.analysis_cell(task, "spectrum", seed, {"network": options.network})
    config = Config(
        **analysed(planner, task),
        seed=seed,
        loss_tolerance_nats=loss_tolerance(planner, task, options),
        curvature=options.curvature,
        num_lanczos_steps=min(options.num_lanczos_steps, total) if options.tolerance is None else None,
        fine_tune_recipe=lasting(task.training, options.fine_tune_epochs).model_copy(
            update={"weight_decay": 0.0, "l1": 0.0}
        ),
        accuracy_drop=options.accuracy_drop,
        max_evaluations=options.max_evaluations,
        resolution=options.resolution,
        dtype=spectrum.config["dtype"],
    )
    inputs = {"dense": planner.reference(task, options.network, seed), "spectrum": spectrum}
    return planner.add("limit", config, inputs, task, f"seed {seed} limits of {options.network}'s dense")


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Predict from the stored spectrum and runs from the removed weights; then prune and evaluate."""
    network = stored_network(config.model, config.data, context, config.dtype).load()
    order = MagnitudeOrder.of(network.weights())
    if config.num_lanczos_steps is None:
        record = Record(metrics=search_metrics_of(inputs["spectrum"]), cost={"matvecs": 0.0})
    else:
        record = _predicted(config, config.num_lanczos_steps, network, order, inputs["spectrum"], context)
    steps = _measure(_Sweep(network, config, context.ranks), record, context)
    record.cost["gradient_steps"] = float(steps)
    return record


def _predicted(
    config: Config, num_lanczos_steps: int, network: Network, order: MagnitudeOrder, spectrum: Record, context: Context
) -> Record:
    measure = finite_measure(spectrum)
    tolerance = config.loss_tolerance_nats or network.loss_tolerance_nats()
    operator = network.hessian(config.dtype)
    context.progress(0.05, "runs from the removed weights")
    delta_measure = lanczos_delta_measure(operator, order, num_lanczos_steps)
    predictions = predict(measure, order, tolerance, delta_measure, config.curvature, resolution=config.resolution)
    record = Record(metrics=prediction_metrics(predictions, "slq"), cost={"matvecs": float(operator.num_matvecs)})
    record.metrics["loss_tolerance_nats"] = Metric(tolerance, "nats")
    return record


def work(config: Config, sizes: Sizes) -> Work:
    """Count evaluations with and without fine-tuning, and runs from removed weights; how many is known by a range."""
    evaluations = Guess(*_EVALUATIONS, 2.0 * config.max_evaluations)
    each = training_work(config.fine_tune_recipe, sizes, evaluates=False)
    steps = config.num_lanczos_steps
    return Work(
        (each._replace(times=evaluations),),
        evaluations.times(2 * (sizes.num_train + sizes.num_validation)),
        Guess.exactly(0) if steps is None else _REMOVED_RUNS.times(steps),
        config.dtype,
        num_rows=steps or 0,
        disk_bytes=file_bytes(6, 36, 16 * evaluations.likely),
    )


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of table/limits: predictions at three tolerances, measured limits at one."""
    rows = prediction_rows(record, "slq", config.curvature)
    tolerance = record.metrics["loss_tolerance_nats"].value
    for name in ("one_shot", "fine_tuned", "one_shot_accuracy", "fine_tuned_accuracy"):
        measured = {"sparsity_limit": record.metrics[f"measured/{name}"].value} | NOT_DEFINED
        rows.append({"limit": name, "source": "measured", "curvature": "", "tolerance_factor": 1.0,
                     "loss_tolerance_nats": tolerance} | measured)  # fmt: skip
    return {"limits": rows}


class _Sweep:
    """Prunes one network in memory to any sparsity, with or without training the rest, and evaluates it."""

    def __init__(self, network: Network, config: Config, ranks: Ranks | None) -> None:
        self.network, self.config, self.ranks = network, config, ranks
        self.nested = NestedMagnitudeMasks(network.model)
        self.dense = {name: value.detach().clone() for name, value in network.model.state_dict().items()}
        self.num_steps = 0
        self.reference = self._evaluated()

    def one_shot(self, sparsity: float) -> dict[str, float]:
        """Remove the smallest weights and touch nothing else."""
        self._prune(sparsity)
        return self._evaluated()

    def fine_tuned(self, sparsity: float) -> dict[str, float]:
        """Remove the smallest weights and re-optimise the others with the plain recipe, shortened."""
        masks = self._prune(sparsity)
        splits = {"train": self.network.splits["train"]}
        recipe, seed = self.config.fine_tune_recipe, self.config.seed
        history = train(self.network.model, splits, recipe, seed, masks=masks, ranks=self.ranks)
        self.num_steps += history.num_steps
        return self._evaluated()

    def _prune(self, sparsity: float) -> Masks:
        self.network.model.load_state_dict(self.dense)
        return self.nested.prune_to(num_removed(sparsity, self.nested.num_prunable))

    def _evaluated(self) -> dict[str, float]:
        model, splits = self.network.model, self.network.splits
        train_split, validation = (
            evaluate(model, splits[name], batch_size=self.config.fine_tune_recipe.micro_batch_size)
            for name in ("train", "validation")
        )
        return {"train_loss": train_split.loss, "validation_accuracy": validation.accuracy}


def _measure(sweep: _Sweep, record: Record, context: Context) -> int:
    """Search all four measured limits; add them and their curves to the record; return the gradient steps spent."""
    most_loss = sweep.reference["train_loss"] + record.metrics["loss_tolerance_nats"].value
    least_accuracy = sweep.reference["validation_accuracy"] - sweep.config.accuracy_drop
    criteria: dict[str, Callable[[Mapping[str, float]], bool]] = {
        "": lambda values: values["train_loss"] <= most_loss,
        "_accuracy": lambda values: values["validation_accuracy"] >= least_accuracy,
    }
    for turn, evaluate_at in enumerate((sweep.one_shot, sweep.fine_tuned)):
        known: dict[float, dict[str, float]] = {}
        for suffix, criterion in criteria.items():
            feasible = _remembering(evaluate_at, known, criterion, partial(context.progress, 0.2 + 0.4 * turn))
            limit = coarse_to_fine(feasible, max_evaluations=sweep.config.max_evaluations)
            record.metrics[f"measured/{evaluate_at.__name__}{suffix}"] = Metric(_limit_or_zero(limit), "1", "higher")
        sparsities = sorted(known)
        record.curves[f"{evaluate_at.__name__}_sparsity"] = np.array(sparsities)
        for name in sweep.reference:
            record.curves[f"{evaluate_at.__name__}_{name}"] = np.array([known[at][name] for at in sparsities])
    return sweep.num_steps


def _remembering(
    evaluate_at: Callable[[float], dict[str, float]],
    known: dict[float, dict[str, float]],
    criterion: Callable[[Mapping[str, float]], bool],
    progress: Callable[[str], None],
) -> Callable[[float], tuple[bool, Mapping[str, Any]]]:
    """Return a criterion that evaluates each sparsity once, also when another criterion asked for it before."""

    def feasible(sparsity: float) -> tuple[bool, Mapping[str, Any]]:
        if sparsity not in known:
            known[sparsity] = evaluate_at(sparsity)
            progress(f"{evaluate_at.__name__} at sparsity {sparsity:.3f}")
        return criterion(known[sparsity]), known[sparsity]

    return feasible


def _limit_or_zero(limit: MeasuredLimit) -> float:
    """Return the limit; nothing can be removed when not even sparsity 0 met the criterion after training."""
    return 0.0 if limit.sparsity_limit is None else limit.sparsity_limit
