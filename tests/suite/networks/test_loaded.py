"""A network in memory: its tolerance and its subsets. Its Hessian is in test_sources.py, through all sources."""

import numpy as np
import pytest
import torch

from suite.networks.loaded import Network
from suite.networks.sources import UserNetwork
from suite.splits import Split


def test_the_tolerance_is_the_spread_of_batches_of_128(user_network: UserNetwork) -> None:
    network = user_network.load()
    inputs, targets, _ = network.splits["train"]
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(network.model(inputs).double(), targets, reduction="none")
    expected = np.std([losses[:128].mean(), losses[128:].mean()])
    assert network.loss_tolerance_nats() == pytest.approx(expected, rel=1e-9)
    bigger = Network(network.model, {"train": Split(inputs[:128].repeat(3, 1), targets[:128].repeat(3))})
    assert bigger.loss_tolerance_nats() == pytest.approx(0, abs=1e-12)  # three equal batches


def test_all_parts_of_a_network_are_planned_by_one_trial(user_network: UserNetwork) -> None:
    network = user_network.load()
    whole, part = network.hessian("float64"), network.with_train_examples(50, 0).hessian("float64")
    assert network.growths.keys() == {("HessianOperator", "float64", "full", "train")}
    alone = user_network.load().with_train_examples(50, 0).hessian("float64")
    assert part.plan == alone.plan != whole.plan
    network.hessian("float32")
    assert network.growths.keys() == {("HessianOperator", dtype, "full", "train") for dtype in ("float64", "float32")}


def test_subsets_of_the_training_split_are_nested_and_never_the_first_ones(user_network: UserNetwork) -> None:
    network = user_network.load()
    whole = network.splits["train"].inputs

    def rows(num_examples: int, seed: int = 0) -> set[tuple[float, ...]]:
        part = network.with_train_examples(num_examples, seed).splits
        assert part["test"] is network.splits["test"]
        assert len(part["train"].inputs) == len(part["train"].targets) == num_examples
        return {tuple(row) for row in part["train"].inputs.tolist()}

    assert rows(20) < rows(50) < rows(160)
    assert rows(20) != rows(20, seed=1)
    assert rows(20) != {tuple(row) for row in whole[:20].tolist()}
    assert torch.equal(network.with_train_examples(160, 0).splits["train"].inputs, whole)
    assert network.with_train_examples(None, 0) is network
    with pytest.raises(ValueError, match=r"num_examples=161 is out of range\. Expected: 1 to 160"):
        network.with_train_examples(161, 0)
