"""Prune a network by one method to an exact number of kept weights, train what is left, measure it."""

from collections.abc import Mapping
from typing import Any

import torch

from suite.cells._context import Context
from suite.cells.dense import history_curves, trained_metrics
from suite.datasets import DataSpec
from suite.estimate.work import Guess, Sizes, Work, trained_network_bytes, training_work
from suite.extensions import load
from suite.network import ModelSpec
from suite.problem import Problem, as_arrays, as_state
from suite.pruning.contract import PlannedTraining, Search, Ticket, planned_trainings
from suite.pruning.masks import Masks, num_kept, pack, unpack
from suite.record import Metric, Record
from suite.strict import Settings, validated
from suite.study import Recipe
from suite.training.flops import forward_flops, training_flops
from suite.training.loop import VERSION as TRAINING_VERSION
from suite.training.loop import History, train

VERSION = 1
SHARDED = False
SHARES_GPU = True


class Config(Settings):
    """Everything the mask and the weights depend on."""

    model: ModelSpec
    data: DataSpec
    threads: int
    recipe: Recipe
    fine_tune_recipe: Recipe
    seed: int
    method: str
    method_version: int
    options: dict[str, Any]
    num_prunable: int
    num_keep: int
    training_version: int = TRAINING_VERSION


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Find the method's ticket, check its count, train it if the method says so, and measure it."""
    method = load("suite.pruning.methods", config.method, "method")
    options = validated(method.Options, config.options, f"options.{config.method}")
    splits = context.training_splits(config.data.sha256)
    problem = Problem.of(
        config.model, splits, initialisation=config.recipe.initialisation, seed=config.seed, device=context.device
    )
    ticket: Ticket = method.find_ticket(_search(config, inputs, problem, context), options)
    _check_count(ticket.masks, config)
    problem.load(ticket.start)
    history = History()
    if ticket.recipe is not None:
        history = train(
            problem.model,
            splits,
            ticket.recipe,
            config.seed,
            masks=ticket.masks,
            start_step=ticket.start_step,
            progress=context.progress,
            stage=context.trainings.stage("training"),
            ranks=context.ranks,
        )
    return _record(config, inputs, problem, ticket, history)


def trains(config: Config) -> list[Recipe]:
    """Return what the method trains with: none where it only removes weights, which one process does."""
    return [each.recipe for each in _planned_trainings(config)]


def work(config: Config, sizes: Sizes) -> Work:
    """Count the trainings that the method says it needs; masks save no time."""
    trainings = [
        training_work(each.recipe, sizes, start_step=each.start_step, evaluates=not each.is_search)
        for each in _planned_trainings(config)
    ]
    disk_bytes = trained_network_bytes(sizes, num_states=1, num_keep=config.num_keep)
    return Work(tuple(trainings), Guess.exactly(sizes.num_examples), disk_bytes=disk_bytes)


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the one row of results.h5's table/rows that this cell fills."""
    names = (
        "test_accuracy",
        "test_accuracy_selected",
        "test_accuracy_oracle_best",
        "validation_accuracy",
        "train_loss",
        "dense_test_accuracy",
    )
    row: dict[str, Any] = {name: record.metrics[name].value for name in names}
    row |= {"num_prunable": config.num_prunable, "num_kept": int(record.metrics["num_kept"].value)}
    row |= {name: record.cost[f"total_{name}"] for name in ("gradient_steps", "num_trainings", "train_flops")}
    row["wall_s"] = record.timings["wall_s"] + record.timings["ancestors_wall_s"]
    return {"rows": [row]}


def _planned_trainings(config: Config) -> list[PlannedTraining]:
    method = load("suite.pruning.methods", config.method, "method")
    options = validated(method.Options, config.options, f"options.{config.method}")
    return planned_trainings(method, config.recipe, config.fine_tune_recipe, options)


def _search(config: Config, inputs: Mapping[str, Record], problem: Problem, context: Context) -> Search:
    dense = inputs["dense"]
    return Search(
        problem=problem,
        num_keep=config.num_keep,
        seed=config.seed,
        recipe=config.recipe,
        fine_tune_recipe=config.fine_tune_recipe,
        initial=as_state(dense.arrays_under("initial")),
        dense=as_state(dense.arrays_under("weights")),
        rewind=as_state(inputs["rewind"].arrays_under("weights")) if "rewind" in inputs else None,
        previous=_previous(inputs["previous"], problem) if "previous" in inputs else None,
        progress=context.progress,
        trainings=context.trainings,
        ranks=context.ranks,
    )


def _previous(record: Record, problem: Problem) -> tuple[dict[str, torch.Tensor], Masks]:
    shapes = {name: weight.detach() for name, weight in problem.prunable.items()}
    return as_state(record.arrays_under("weights")), unpack(record.arrays["mask"], shapes)


def _check_count(masks: Masks, config: Config) -> None:
    """Hold the method to its one promise before any time is spent on training."""
    if num_kept(masks) != config.num_keep:
        raise RuntimeError(f"{config.method} kept {num_kept(masks)} weights. Expected: exactly {config.num_keep}.")


def _record(config: Config, inputs: Mapping[str, Record], problem: Problem, ticket: Ticket, history: History) -> Record:
    state = problem.state()
    metrics = trained_metrics(problem, history, config.recipe)
    if config.num_keep == config.num_prunable:  # the dense reference itself, with the epochs of its own training
        for name in ("test_accuracy_selected", "test_accuracy_oracle_best"):
            metrics[name] = inputs["dense"].metrics[name]
    metrics["num_kept"] = Metric(num_kept(ticket.masks), "weights")
    metrics["sparsity"] = Metric(1 - config.num_keep / config.num_prunable)
    metrics["dense_test_accuracy"] = Metric(inputs["dense"].metrics["test_accuracy"].value, "1", "higher")
    for name, mask in ticket.masks.items():
        metrics[f"num_kept_by_layer/{name}"] = Metric(int(mask.sum()), "weights")
    per_example = forward_flops(problem.model, problem.splits["train"])
    own = {
        "gradient_steps": float(history.num_steps + ticket.search_steps),
        "num_trainings": float(history.num_steps > 0) + float(ticket.search_steps > 0),
        "train_flops": training_flops(per_example, ticket.masks, history.num_examples) + ticket.search_flops,
    }
    return Record(
        metrics=metrics,
        curves=history_curves(history),
        arrays={"mask": pack(ticket.masks)} | as_arrays(state, "weights"),
        cost=own | _totals(own, inputs, uses_dense=ticket.uses_dense),
        timings={"ancestors_wall_s": _ancestors_wall_s(inputs, uses_dense=ticket.uses_dense)},
    )


def _totals(own: Mapping[str, float], inputs: Mapping[str, Record], *, uses_dense: bool) -> dict[str, float]:
    """Add up what the whole way to this network cost, from the dense training on, shared or not."""
    totals = dict(own)
    if "previous" in inputs:
        earlier = inputs["previous"].cost
        return {f"total_{name}": value + earlier[f"total_{name}"] for name, value in totals.items()}
    if uses_dense:
        dense = inputs["dense"].cost
        totals["gradient_steps"] += dense["gradient_steps"]
        totals["train_flops"] += dense["train_flops"]
        totals["num_trainings"] += 1
    return {f"total_{name}": value for name, value in totals.items()}


def _ancestors_wall_s(inputs: Mapping[str, Record], *, uses_dense: bool) -> float:
    """Return the seconds spent on the cells that this one's result rests on."""
    if "previous" in inputs:
        timings = inputs["previous"].timings
        return timings["wall_s"] + timings["ancestors_wall_s"]
    return inputs["dense"].timings["wall_s"] if uses_dense else 0.0
