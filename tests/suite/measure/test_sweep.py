import copy
from typing import Any

import numpy as np
import pytest
import torch

from suite.measure.sweep import magnitude_sweep
from suite.network import prunable_weights
from suite.networks.loaded import Network
from suite.problem import evaluate
from suite.pruning.masks import keep_top_globally, masked
from suite.splits import Split


@pytest.fixture
def held(network: Any) -> Network:
    inputs = torch.cat([inputs for inputs, _ in network.batches])
    targets = torch.cat([targets for _, targets in network.batches])
    splits = {"train": Split(inputs[:10], targets[:10]), "test": Split(inputs[10:], targets[10:])}
    return Network(network.model.eval(), splits)


def by_brute_force(network: Network, num_points: int) -> dict[str, list[float]]:
    """Every point with a network of its own, an argsort of its own, and one evaluation per split."""
    weights = {name: weight.detach() for name, weight in prunable_weights(network.model).items()}
    total = sum(weight.numel() for weight in weights.values())
    found: dict[str, list[float]] = {}
    for point in range(num_points):
        model = copy.deepcopy(network.model)
        num_keep = total - -(-point * total // num_points)
        masks = keep_top_globally({name: weight.abs() for name, weight in weights.items()}, num_keep)
        model.load_state_dict(masked(model.state_dict(), masks))
        for split, examples in network.splits.items():
            loss, accuracy = evaluate(model, examples)
            found.setdefault(f"{split}_loss", []).append(loss)
            found.setdefault(f"{split}_accuracy", []).append(accuracy)
    return found


def test_all_points_evaluated_are_those_of_brute_force(held: Network) -> None:
    expected = by_brute_force(held, 150)
    curve = magnitude_sweep(held, num_sparsities=150, accuracy_tolerance=1e-9, loss_tolerance=1e-9, max_evaluations=150)
    assert set(curve.values) == set(expected) == {f"{s}_{v}" for s in ("train", "test") for v in ("loss", "accuracy")}
    evaluated = curve.evaluated
    assert evaluated.sum() > 20
    for name, values in expected.items():
        assert curve.values[name][evaluated].tolist() == np.array(values)[evaluated].tolist()  # the same bits


def test_within_the_tolerance_interpolated_losses_are_near_the_true_ones(held: Network) -> None:
    expected = by_brute_force(held, 150)
    curve = magnitude_sweep(held, num_sparsities=150, accuracy_tolerance=0.01, loss_tolerance=0.02, max_evaluations=150)
    assert curve.is_within_tolerance
    for name, values in expected.items():
        error = np.abs(curve.values[name] - values)
        assert error[curve.evaluated].max() == 0.0
        assert error.max() <= curve.largest_steps[name] + 0.1 * np.max(values)


def test_the_network_is_as_it_was_and_progress_ends(held: Network) -> None:
    before = {name: value.numpy().tobytes() for name, value in held.model.state_dict().items()}
    told: list[tuple[float, str]] = []
    magnitude_sweep(
        held,
        num_sparsities=40,
        accuracy_tolerance=0.01,
        loss_tolerance=0.01,
        max_evaluations=10,
        progress=lambda fraction, text: told.append((fraction, text)),
    )
    assert {name: value.numpy().tobytes() for name, value in held.model.state_dict().items()} == before
    assert [fraction for fraction, _ in told] == [count / 10 for count in range(1, 11)]
    assert told[-1][1] == "evaluation 10 of at most 10, at most 0 s left"
