"""Networks loaded by path, whoever wrote what lies there, and what a user's own network can get wrong."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data import StoredSplit, read_dataset, write_dataset
from data.hdf5 import FileRefused
from suite.cells.dense import Config
from suite.errors import UserError
from suite.limits.removal import MagnitudeOrder
from suite.networks.sources import HeldNetwork, MemoryNetwork, StoredNetwork, UserNetwork
from suite.plan import Cell
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


def test_data_that_changed_after_planning_are_refused(source: StoredNetwork) -> None:
    with pytest.raises(FileRefused, match="has changed since the study was planned"):
        replace(source, data_sha256="0" * 64).load()


def test_a_source_of_a_subset_builds_the_mean_over_it(source: StoredNetwork) -> None:
    vector = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few = replace(source, num_examples=50, subset_seed=3).build()
    assert few.num_examples == 50
    expected = source.load().with_train_examples(50, 3).hessian("float64").matvec(vector)
    assert torch.equal(few.matvec(vector), expected)
    assert not torch.allclose(source.build().matvec(vector), expected)


def test_every_source_refuses_a_network_without_a_fixed_hessian_in_one_line(source: StoredNetwork) -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.linear(inputs) * torch.rand(())

    train = source.load().splits["train"]
    with torch.random.fork_rng(devices=[]):
        noisy = MemoryNetwork.of(Random(), train.inputs, train.targets)
        for each in (noisy, HeldNetwork(source, noisy.network)):
            with pytest.raises(UserError, match=r"^[^\n]*Random[^\n]*$"):
                each.build()


def test_weights_are_the_ones_of_the_file(user_network: UserNetwork, committed: Any) -> None:
    order = MagnitudeOrder.of(user_network.load().weights())
    random = committed.cells("prune", method="random")[0]
    state = committed.store.load(random.inputs["dense"]).arrays_under("weights")
    expected = np.concatenate([state["1.weight"].ravel(), state["3.weight"].ravel()]).astype(np.float64)
    assert np.array_equal(order.weights, expected)


def refused(source: UserNetwork) -> str:
    with pytest.raises(UserError) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_not_there(user_network: UserNetwork, tmp_path: Path) -> None:
    message = refused(replace(user_network, weights=tmp_path / "none.pt"))
    assert message.endswith("none.pt does not exist. Expected: torch.save(model.state_dict(), PATH).")


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("/nowhere"),))  # type: ignore[return-value]


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 3}, Evil()])
def test_files_that_hold_no_state_dict(user_network: UserNetwork, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pt")
    message = refused(replace(user_network, weights=tmp_path / "odd.pt"))
    assert "odd.pt" in message
    assert "Expected: torch.save(model.state_dict(), PATH)." in message


def test_a_damaged_file_of_weights(user_network: UserNetwork, tmp_path: Path) -> None:
    (tmp_path / "half.pt").write_bytes(user_network.weights.read_bytes()[:100])
    assert "half.pt cannot be read as weights: " in refused(replace(user_network, weights=tmp_path / "half.pt"))


def test_a_network_that_does_not_take_the_data(user_network: UserNetwork, tmp_path: Path) -> None:
    path = tmp_path / "wide.h5"
    split = StoredSplit(np.zeros((4, 7), np.float32), np.arange(4) % 3)
    write_dataset(path, {"train": split}, {"classes": 3, "source": "", "licence": ""})
    assert "does not take inputs of shape (7,): " in refused(replace(user_network, data=path))


def test_data_with_more_classes_than_logits(user_network: UserNetwork, tmp_path: Path) -> None:
    path = tmp_path / "many.h5"
    split = StoredSplit(np.zeros((10, 6), np.float32), np.arange(10))
    write_dataset(path, {"train": split}, {"classes": 10, "source": "", "licence": ""})
    message = refused(replace(user_network, data=path))
    assert "returned (2, 3) for 2 inputs. Expected: logits (2, classes) for at least 10 classes." in message


@torch.random.fork_rng(devices=[])
def test_networks_in_memory_are_equal_when_their_hessians_are() -> None:
    model, inputs, targets = torch.nn.Linear(3, 2), torch.ones(5, 3), torch.zeros(5, dtype=torch.long)
    source = MemoryNetwork.of(model, inputs, targets)
    assert source == replace(source)
    assert hash(source) == hash(replace(source))
    assert source.with_examples(4, 0) == source.with_examples(4, 0) != source
    assert source != replace(source, dtype="float64")
    assert source != MemoryNetwork.of(model, inputs, targets)
