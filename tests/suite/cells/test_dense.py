import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import read_dataset
from suite.cells._context import Context
from suite.cells.dense import Config, run, trained_metrics
from suite.datasets import training_splits
from suite.plan import Cell
from suite.problem import Problem, as_state, evaluate
from suite.record import Record
from suite.training.loop import History


@pytest.fixture
def plain(committed: Any) -> Any:
    """The dense network of the plain recipe, trained to its end."""
    (cell,) = [
        cell
        for cell in committed.cells("dense", stop_step=None)
        if cell.config["recipe"]["l1"] == 0 and cell.config["recipe"]["initialisation"] == "kaiming_normal"
    ]
    return cell


def run_again(cell: Cell, data: Path, **changes: Any) -> Record:
    config = Config.model_validate(cell.config | changes, strict=False)
    return run(config, {}, Context(places={"data": data}))


def test_the_metrics_are_those_of_the_stored_weights(committed: Any, plain: Cell, tiny_data: Path) -> None:
    record, splits = committed.record(plain), training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu")
    config = Config.model_validate(plain.config, strict=False)
    problem = Problem.of(config.model, splits, initialisation="as_built", seed=9, device="cpu")
    problem.load(as_state(record.arrays_under("weights")))
    for name, split in splits.items():
        loss, accuracy = evaluate(problem.model, split)
        assert record.metrics[f"{name}_loss"].value == loss
        assert record.metrics[f"{name}_accuracy"].value == accuracy


def test_the_initial_weights_are_those_of_the_seed(committed: Any, plain: Cell) -> None:
    config = Config.model_validate(plain.config, strict=False)
    problem = Problem.of(config.model, {}, initialisation="kaiming_normal", seed=config.seed, device="cpu")
    stored = committed.record(plain).arrays_under("initial")
    assert all(np.array_equal(stored[name], value.numpy()) for name, value in problem.state().items())


def test_epochs_are_chosen_on_validation_and_the_oracle_says_its_name(committed: Any, plain: Cell) -> None:
    record = committed.record(plain)
    test, validation = record.curves["test_accuracy"], record.curves["validation_accuracy"]
    assert record.metrics["test_accuracy_selected"].value == test[int(np.argmax(validation))]
    assert record.metrics["test_accuracy_oracle_best"].value == test.max()
    assert record.metrics["test_accuracy"].value == test[-1]


def test_the_first_epoch_of_best_validation_is_chosen_whatever_the_test_set_says(
    committed: Any, plain: Cell, tiny_data: Path
) -> None:
    splits = training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu")
    config = Config.model_validate(plain.config, strict=False)
    problem = Problem.of(config.model, splits, initialisation="as_built", seed=9, device="cpu")
    curves = {"validation_accuracy": [0.1, 0.8, 0.8, 0.3], "test_accuracy": [0.9, 0.4, 0.5, 0.6]}
    metrics = trained_metrics(problem, History(curves=curves), config.recipe)
    assert metrics["test_accuracy_selected"].value == 0.4
    assert metrics["test_accuracy_oracle_best"].value == 0.9
    untrained = trained_metrics(problem, History(), config.recipe)
    assert math.isnan(untrained["test_accuracy_selected"].value)
    assert math.isnan(untrained["test_accuracy_oracle_best"].value)


def test_the_cost_by_hand(committed: Any, plain: Cell) -> None:
    # 3 epochs of 160 examples in batches of 32; 72 weights, 2 operations each, three times for forward and backward.
    assert committed.record(plain).cost == {"gradient_steps": 15.0, "train_flops": 3 * 480 * 2 * 72}


def test_directions_and_units(committed: Any, plain: Cell) -> None:
    metrics = committed.record(plain).metrics
    assert (metrics["test_loss"].unit, metrics["test_loss"].better) == ("nats", "lower")
    assert (metrics["test_accuracy"].unit, metrics["test_accuracy"].better) == ("1", "higher")


def test_the_network_learns(committed: Any, plain: Cell) -> None:
    assert committed.record(plain).metrics["test_accuracy"].value > 0.6  # chance is 1/3


def test_a_rewind_cell_is_the_beginning_of_the_whole_training(committed: Any, plain: Cell, tiny_data: Path) -> None:
    (rewind,) = committed.cells("dense", stop_step=3)
    record = committed.record(rewind)
    assert record.cost["gradient_steps"] == 3
    whole = committed.record(plain)
    for name, array in record.arrays_under("initial").items():
        assert np.array_equal(array, whole.arrays[f"initial/{name}"])
    stopped_at_the_end = run_again(plain, tiny_data, stop_step=15)
    for name, array in whole.arrays_under("weights").items():
        assert np.array_equal(array, stopped_at_the_end.arrays[f"weights/{name}"])


def test_other_seeds_and_recipes_train_to_other_weights(committed: Any, plain: Cell, tiny_data: Path) -> None:
    weights = committed.record(plain).arrays["weights/1.weight"]
    assert not np.array_equal(run_again(plain, tiny_data, seed=1).arrays["weights/1.weight"], weights)
    longer = plain.config["recipe"] | {"epochs": 4}
    assert not np.array_equal(run_again(plain, tiny_data, recipe=longer).arrays["weights/1.weight"], weights)


def test_l1_pulls_the_weights_to_zero(committed: Any, plain: Cell, tiny_data: Path) -> None:
    pulled = run_again(plain, tiny_data, recipe=plain.config["recipe"] | {"l1": 0.05, "epochs": 20})
    free = run_again(plain, tiny_data, recipe=plain.config["recipe"] | {"epochs": 20})
    mean = [float(torch.from_numpy(each.arrays["weights/1.weight"]).abs().mean()) for each in (pulled, free)]
    assert mean[0] < 0.7 * mean[1]
