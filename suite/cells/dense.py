"""Train the dense network of a task with one recipe, whole or up to a step to which pruned networks are rewound."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from suite.cells._context import Context
from suite.datasets import DataSpec
from suite.estimate.work import Guess, Sizes, Work, trained_network_bytes, training_work
from suite.network import ModelSpec
from suite.problem import Problem, as_arrays, evaluate
from suite.record import Metric, Record
from suite.strict import Settings
from suite.study import Recipe
from suite.training.flops import forward_flops, training_flops
from suite.training.loop import VERSION as TRAINING_VERSION
from suite.training.loop import History, train

VERSION = 1
SHARDED = False
SHARES_GPU = True


class Config(Settings):
    """Everything the weights depend on."""

    model: ModelSpec
    data: DataSpec
    threads: int
    recipe: Recipe
    seed: int
    stop_step: int | None = None  # None: to the end
    training_version: int = TRAINING_VERSION


def run(config: Config, inputs: Mapping[str, Record], context: Context) -> Record:
    """Train from the seed's initial weights; store the initial and the trained weights."""
    del inputs
    splits = context.training_splits(config.data.sha256)
    problem = Problem.of(
        config.model, splits, initialisation=config.recipe.initialisation, seed=config.seed, device=context.device
    )
    initial = problem.state()
    history = train(
        problem.model,
        splits,
        config.recipe,
        config.seed,
        stop_step=config.stop_step,
        progress=context.progress,
        stage=context.trainings.stage("training"),
        ranks=context.ranks,
    )
    flops = training_flops(forward_flops(problem.model, splits["train"]), None, history.num_examples)
    return Record(
        metrics=trained_metrics(problem, history, config.recipe),
        curves=history_curves(history),
        arrays=as_arrays(initial, "initial") | as_arrays(problem.state(), "weights"),
        cost={"gradient_steps": history.num_steps, "train_flops": flops},
    )


def work(config: Config, sizes: Sizes) -> Work:
    """Count one training, with the initial and the trained weights on disk."""
    training = training_work(config.recipe, sizes, stop_step=config.stop_step)
    disk_bytes = trained_network_bytes(sizes, num_states=2)
    return Work((training,), Guess.exactly(sizes.num_examples), disk_bytes=disk_bytes)


def tables(config: Config, record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return no rows: a dense network is reported through the method "dense"."""
    del config, record
    return {}


def trained_metrics(problem: Problem, history: History, recipe: Recipe) -> dict[str, Metric]:
    """Return what every trained network is measured by: at the last epoch, and at the epoch chosen on validation.

    The last epoch is evaluated in float32; the two that are chosen from the curves are in the training's precision.

    The best test accuracy over epochs is stored under a name that says so; it chose its epoch on the test set.
    """
    measured = {
        name: evaluate(problem.model, problem.splits[name], batch_size=recipe.micro_batch_size)
        for name in ("train", "validation", "test")
    }
    selected, best = _chosen_epochs(history)
    metrics = {f"{name}_loss": Metric(value.loss, "nats", "lower") for name, value in measured.items()}
    metrics |= {f"{name}_accuracy": Metric(value.accuracy, "1", "higher") for name, value in measured.items()}
    metrics["test_accuracy_selected"] = Metric(selected, "1", "higher")
    metrics["test_accuracy_oracle_best"] = Metric(best, "1", "higher")
    return metrics


def history_curves(history: History) -> dict[str, np.ndarray]:
    """Return the curves of a training as arrays."""
    return {name: np.asarray(values) for name, values in history.curves.items()}


def _chosen_epochs(history: History) -> tuple[float, float]:
    """Return test accuracy at the first epoch of best validation accuracy, and the best over all epochs."""
    test: list[Any] = history.curves.get("test_accuracy", [])
    if not test:  # evaluated as it was: there were no epochs to choose from
        return math.nan, math.nan
    return test[int(np.argmax(history.curves["validation_accuracy"]))], max(test)
