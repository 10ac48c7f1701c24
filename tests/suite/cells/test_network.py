"""Networks loaded by path. What a user's own network can get wrong is in tests/suite/test_measure.py."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import read_dataset
from data.hdf5 import FileRefused
from suite.cells._network import Network
from suite.cells._sources import StoredNetwork
from suite.cells.dense import Config
from suite.errors import UserError
from suite.plan import Cell
from suite.splits import Split
from suite.store import CellId


@pytest.fixture
def dense(committed: Any) -> Any:
    return committed.cells("dense", stop_step=None)[0]


@pytest.fixture
def source(committed: Any, dense: Cell, tiny_data: Path) -> StoredNetwork:
    model = Config.model_validate(dense.config, strict=False).model
    return StoredNetwork(
        model, dense.id, committed.store.folder, tiny_data, read_dataset(tiny_data).sha256, "cpu", "float64"
    )


def test_it_is_the_committed_network(committed: Any, dense: Cell, source: StoredNetwork) -> None:
    network, stored = source.load(), committed.record(dense).arrays_under("weights")
    assert not network.model.training
    assert all(np.array_equal(value.numpy(), stored[name]) for name, value in network.model.state_dict().items())
    flat = np.concatenate([stored["1.weight"].ravel(), stored["3.weight"].ravel()])
    assert np.array_equal(network.weights(), flat.astype(np.float64))


def test_it_travels_by_path_and_gives_the_same_products_there(source: StoredNetwork) -> None:
    sent = pickle.dumps(source)
    assert len(sent) < 2000
    vector = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(pickle.loads(sent).build().matvec(vector), source.build().matvec(vector))


def test_the_hessian_does_not_depend_on_how_examples_are_batched(
    source: StoredNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = source.build().matvec(vector)
    monkeypatch.setattr("suite.curvature.memory.MAX_EXAMPLES_PER_BATCH", 33)
    assert torch.allclose(source.build().matvec(vector), whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_products_of_shards_add_up(source: StoredNetwork, size: int) -> None:
    vector = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shards = [source.build_shard(rank, size) for rank in range(size)]
    assert {shard.num_examples for shard in shards} == {160}
    total = torch.stack([shard.matvec(vector) for shard in shards]).sum(dim=0)
    assert torch.allclose(total, source.build().matvec(vector), rtol=1e-10, atol=1e-14)


def test_more_shards_than_examples_are_refused(source: StoredNetwork) -> None:
    with pytest.raises(UserError, match="group_size=161 is too large for 160 examples"):
        source.build_shard(0, 161)


def test_a_network_that_is_not_committed(source: StoredNetwork) -> None:
    missing = StoredNetwork(
        source.model, CellId("dense", "0" * 64), source.folder, source.data, source.data_sha256, "cpu"
    )
    with pytest.raises(FileRefused, match=r"dense-0000000000000000\.h5 does not exist"):
        missing.load()


def test_the_tolerance_is_the_spread_of_batches_of_128(source: StoredNetwork) -> None:
    network = source.load()
    inputs, targets, _ = network.splits["train"]
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(network.model(inputs).double(), targets, reduction="none")
    expected = np.std([losses[:128].mean(), losses[128:].mean()])
    assert network.loss_tolerance_nats() == pytest.approx(expected, rel=1e-9)
    bigger = Network(network.model, {"train": Split(inputs[:128].repeat(3, 1), targets[:128].repeat(3))})
    assert bigger.loss_tolerance_nats() == pytest.approx(0, abs=1e-12)  # three equal batches


def test_all_parts_of_a_network_are_planned_by_one_trial(source: StoredNetwork) -> None:
    network = source.load()
    whole, part = network.hessian("float64"), network.with_train_examples(50, 0).hessian("float64")
    assert network.growths.keys() == {("float64", "full", "train")}
    alone = source.load().with_train_examples(50, 0).hessian("float64")
    assert part.plan == alone.plan != whole.plan
    network.hessian("float32")
    assert network.growths.keys() == {("float64", "full", "train"), ("float32", "full", "train")}


def test_data_that_changed_after_planning_are_refused(source: StoredNetwork) -> None:
    with pytest.raises(FileRefused, match="has changed since the study was planned"):
        replace(source, data_sha256="0" * 64).load()


def test_subsets_of_the_training_split_are_nested_and_never_the_first_ones(source: StoredNetwork) -> None:
    network = source.load()
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


def test_a_source_of_a_subset_builds_the_mean_over_it(source: StoredNetwork) -> None:
    vector = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few = replace(source, num_examples=50, subset_seed=3).build()
    assert few.num_examples == 50
    expected = source.load().with_train_examples(50, 3).hessian("float64").matvec(vector)
    assert torch.equal(few.matvec(vector), expected)
    assert not torch.allclose(source.build().matvec(vector), expected)
