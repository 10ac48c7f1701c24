"""Inputs that stay in their file against the same inputs in memory: the same bits, everywhere."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from data import StoredSplit, read_dataset, write_dataset
from data.hdf5 import FileRefused, StoredRows
from suite import datasets
from suite.cells import dense
from suite.cells._context import Context
from suite.datasets import fits, locate, stored_splits, training_splits, verified_splits
from suite.network import prunable_weights
from suite.networks.loaded import Network
from suite.problem import evaluate
from suite.splits import Examples
from suite.streaming import StreamedSplit
from suite.study import Recipe
from suite.training.batches import Batches
from suite.training.data_parallel import Ranks
from suite.training.loop import train

ROOT = Path(__file__).parents[2]
SHAPE, NUM_CLASSES = (3, 8, 8), 3
SIZES = {"train": 150, "validation": 40, "test": 50}
Both = tuple[dict[str, Examples], dict[str, Examples]]


def made(path: Path, dtype: str) -> Path:
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (NUM_CLASSES, *SHAPE))
    splits = {}
    for name, size in SIZES.items():
        targets = np.arange(size) % NUM_CLASSES
        pixels = (prototypes[targets] + 3 * rng.integers(0, 256, (size, *SHAPE))) // 4
        splits[name] = StoredSplit((pixels / (1 if dtype == "uint8" else 97)).astype(dtype), targets)
    moments = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)} if dtype == "uint8" else {}
    write_dataset(path, splits, {"classes": NUM_CLASSES, "source": "made here", "licence": "CC0", **moments})
    return path


@pytest.fixture(scope="module", params=["uint8", "float32", "float64"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The same file in memory and streamed."""
    path = made(tmp_path_factory.mktemp("streamed") / "images.h5", request.param)
    held, streamed = (stored_splits(path, "cpu", stream=stream) for stream in (False, True))
    assert all(isinstance(split, StreamedSplit) for split in streamed.values())
    assert not any(isinstance(split, StreamedSplit) for split in held.values())
    return held, streamed


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def same(one: Any, other: Any) -> bool:
    tensors = all(torch.equal(one[i], other[i]) and one[i].dtype == other[i].dtype for i in range(2))
    return tensors and one.normalisation == other.normalisation


@pytest.mark.parametrize("index", [slice(3), slice(10, 40), slice(140, 999), torch.tensor([7, 0, 7, 149])])
def test_parts_are_those_of_memory(index: Any, both: Both) -> None:
    held, streamed = (splits["train"] for splits in both)
    assert same(held.part(index), streamed.part(index))
    assert held.input_shape == streamed.input_shape == SHAPE
    assert held.inputs_bytes == streamed.inputs_bytes
    run, streamed_run = (split.between(20, 90) for split in (held, streamed))
    assert same(run.part(slice(5, 50)), streamed_run.part(slice(5, 50)))
    chosen = torch.tensor([69, 0, 3])
    assert same(run.part(chosen), streamed_run.part(chosen))
    with pytest.raises(IndexError):
        streamed_run.part(torch.tensor([70]))


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_all_ways_through_are_those_of_memory(size: int, both: Both) -> None:
    held, streamed = (splits["validation"] for splits in both)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:33]
    for one, other in zip(held.parts(size), streamed.parts(size), strict=True):
        assert same(one, other)
    for one, other in zip(held.batches(order, size), streamed.batches(order, size), strict=True):
        assert same(one, other)
    pairs, again = held.pairs(size), streamed.pairs(size)
    assert len(pairs) == len(again)
    for _ in range(2):
        for one, other, at in zip(pairs, again, range(len(pairs)), strict=True):
            assert all(map(torch.equal, one, other))
            assert all(map(torch.equal, one, again[at]))


def test_training_and_evaluation_give_the_same_bits(both: Both) -> None:
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05, l1=1e-4)

    def trained(splits: dict[str, Examples]) -> Any:
        model = network()
        history = train(model, splits, recipe, 0)
        return history, [evaluate(model, split, batch_size=37) for split in splits.values()], model.state_dict()

    (*found, state), (*other, other_state) = map(trained, both)
    assert found == other
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


def test_curvature_gives_the_same_bits(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.curvature.memory.MAX_EXAMPLES_PER_BATCH", 64)
    dim = sum(weight.numel() for weight in prunable_weights(network()).values())
    vector = torch.randn(dim, generator=torch.Generator().manual_seed(0))

    def products(splits: dict[str, Examples]) -> list[Tensor]:
        whole = Network(network().eval(), splits)
        operators = [whole.hessian("float32"), whole.hessian("float32", may_keep_graphs=False)]
        operators += [whole.hessian("float32", shard=(rank, 4)) for rank in range(4)]
        operators += [whole.with_train_examples(70, 3).hessian("float32"), whole.gauss_newton("float32")]
        tolerance = torch.tensor(whole.loss_tolerance_nats())
        return [*(operator.matvec(vector) for operator in operators for _ in range(2)), tolerance]

    held, streamed = map(products, both)
    assert all(map(torch.equal, held, streamed))


def test_the_record_of_a_cell_is_the_same(committed: Any, tiny_data: Path) -> None:
    cell = committed.cells("dense", stop_step=None)[0]
    config = dense.Config.model_validate(cell.config, strict=False)
    held, streamed = (
        dense.run(config, {}, Context(places={"data": tiny_data}, stream=stream)) for stream in (False, True)
    )
    assert {name: metric.value for name, metric in held.metrics.items()} == {
        name: metric.value for name, metric in streamed.metrics.items()
    }
    for kept in ("arrays", "curves"):
        ours, theirs = getattr(held, kept), getattr(streamed, kept)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
    assert held.cost == streamed.cost


def test_one_thread_reads_one_batch_ahead(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed, readers = both[1]["train"], []
    read = StoredRows.read

    def noted(self: StoredRows, index: Any, out: Any) -> None:
        read(self, index, out)
        readers.append(threading.get_ident())

    monkeypatch.setattr(StoredRows, "read", noted)
    coming = streamed.batches(torch.arange(100), 10)
    next(coming)
    deadline = time.monotonic() + 10
    while len(readers) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(readers) == 2  # the one that is there, and the next
    assert len([*coming]) == 9
    assert len(readers) == 10
    assert set(readers) != {threading.get_ident()}
    assert len(set(readers)) == 1


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_each_of_several_processes_reads_its_shards_ahead(
    augmentation: Any, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, streamed = (splits["train"] for splits in both)
    recipe = Recipe(epochs=2, batch_size=21, learning_rate=0.1, augmentation=augmentation)  # 7 whole ones, and one of 3
    threads = set()
    read = StreamedSplit._read

    def noted(self: StreamedSplit, index: Any) -> Tensor:
        threads.add(threading.get_ident())
        return read(self, index)

    monkeypatch.setattr(StreamedSplit, "_read", noted)
    size, group = 4, cast(ProcessGroup, None)  # a shard needs no word from the others
    whole = Batches(held, recipe, seed=3)
    ours, theirs = (
        [Batches(each, recipe, 3, Ranks(rank, size, group, torch.device("cpu"))) for rank in range(size)]
        for each in (held, streamed)
    )
    for step in (*range(16), 4, 5, 13):  # the last ones as trainings that go on have them
        shards = [batches.at(step) for batches in ours]
        assert all(map(same, shards, [batches.at(step) for batches in theirs]))
        expected = whole.at(step)
        if step % 8 < 7:
            assert torch.equal(torch.cat([shard.inputs for shard in shards]), expected.inputs)
            assert torch.equal(torch.cat([shard.targets for shard in shards]), expected.targets)
        else:
            assert all(same(shard, expected) for shard in shards)
    assert threads
    assert threading.get_ident() not in threads


def test_a_pass_that_is_left_leaves_no_thread(both: Both) -> None:
    before = threading.active_count()
    coming = both[1]["train"].parts(10)
    next(coming)
    del coming
    assert threading.active_count() == before


def test_a_chunk_that_is_damaged_later_ends_the_pass(tmp_path: Path) -> None:
    path, draw = tmp_path / "images.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:  # more than HDF5 keeps decoded
        inputs = draw.integers(0, 256, (5000, 3, 32, 32), dtype=np.uint8)
        layout: dict[str, Any] = {"compression": "gzip", "fletcher32": True, "chunks": (10, 3, 32, 32)}
        file.create_dataset("train/inputs", data=inputs, **layout)
        file["train/targets"] = np.arange(5000) % 3
    with h5py.File(path) as file:
        first = file["train/inputs"].id.get_chunk_info(0)
    train_split = stored_splits(path, "cpu", stream=True)["train"]
    with path.open("r+b") as content:
        content.seek(first.byte_offset + 1000)
        content.write(b"damaged")
    with pytest.raises(FileRefused, match=r"images\.h5 has unreadable rows"):
        [*train_split.parts(64)]


def test_what_is_wrong_with_a_file_is_found_without_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    inputs = np.ones((600, 5000), np.float32)  # of a user; some blocks
    inputs[599, 4] = np.nan
    with h5py.File(path, "w") as file:
        file["train/inputs"], file["train/targets"] = inputs, np.arange(600) % 3
    message = r"1 values in train/inputs that are not finite in float32 \(the first at \(599, 4\)\)"
    for stream in (False, True):
        with pytest.raises(FileRefused, match=message):
            stored_splits(path, "cpu", stream=stream)
    with h5py.File(path, "r+") as file:
        file["train/inputs"][599, 4] = 1
        file.attrs["sha256"] = "0" * 64
    with pytest.raises(FileRefused, match="holds arrays with digest"):
        stored_splits(path, "cpu", stream=True)


def test_the_digest_is_that_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.hdf5.rows._BLOCK_BYTES", 1000)
    path = made(tmp_path / "images.h5", "uint8")
    sha256 = read_dataset(path).sha256
    assert read_dataset(path, streamed=True).sha256 == locate(str(path)).spec.sha256 == sha256
    verified_splits(path, sha256, "cpu", stream=True)
    with pytest.raises(FileRefused, match="has changed since the study was planned"):
        verified_splits(path, "0" * 64, "cpu", stream=True)


@pytest.mark.parametrize(("available", "streams"), [(10**9, False), (10**4, True)])
def test_what_does_not_fit_is_streamed(
    available: int, streams: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "images.h5", "uint8")
    monkeypatch.setattr(datasets, "available_bytes", lambda: available)
    splits = training_splits(path, read_dataset(path).sha256, "cpu")
    assert isinstance(splits["train"], StreamedSplit) == streams


def test_a_gpu_must_have_room_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "available_bytes", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (500, 2000))
    assert [fits(size, "cpu") for size in (400, 401)] == [True, False]
    assert [fits(size, "cuda") for size in (200, 201)] == [True, False]


def test_the_processes_of_a_cell_share_host_memory_and_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "available_bytes", lambda: 1000)
    assert [fits(size, "cpu", processes=4) for size in (100, 101)] == [True, False]
    for free, most in ((500, 100), (200, 80)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 2000))
        assert [fits(size, "cuda", processes=4) for size in (most, most + 1)] == [True, False]


def test_a_cell_asks_for_all_of_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "images.h5", "uint8")
    num_bytes = sum(SIZES.values()) * 3 * 8 * 8
    monkeypatch.setattr(datasets, "available_bytes", lambda: 4 * num_bytes)  # enough for one of them
    for size in (1, 2):
        ranks = Ranks(0, size, cast(ProcessGroup, None), torch.device("cpu"))
        splits = Context(places={"data": path}, ranks=ranks).training_splits(read_dataset(path).sha256)
        assert isinstance(splits["train"], StreamedSplit) == (size == 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_gets_the_same_batches(tmp_path: Path) -> None:
    path = made(tmp_path / "images.h5", "uint8")
    held, streamed = (stored_splits(path, "cuda", stream=stream)["train"] for stream in (False, True))
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    for one, other in zip(held.batches(order, 32), streamed.batches(order.cuda(), 32), strict=True):
        assert other.inputs.is_cuda
        assert same(one, other)


PEAK = """
import json, sys
from pathlib import Path
import torch
from suite.datasets import locate, training_splits
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training.batches import Batches
from suite.training.data_parallel import Ranks
from suite.training.loop import train

torch.set_num_threads(1)
torch.manual_seed(0)
path, stream = Path(sys.argv[1]), sys.argv[2] == "streamed"
def peak():  # ru_maxrss would begin with that of the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 4))
recipe = Recipe(epochs=1, batch_size=64, learning_rate=1e-3)
few = Split(torch.zeros(128, 3, 64, 64, dtype=torch.uint8), torch.arange(128) % 4, Normalisation((0.0,), (1.0,)))
train(model, {"train": few}, recipe, 0)  # what a first training loads and allocates
before = peak()
splits = training_splits(path, locate(str(path)).spec.sha256, "cpu", stream=stream)
train(model, {"train": splits["train"]}, recipe, 0)
print(json.dumps({"grown": peak() - before, "weights": float(model[1].weight.detach().sum(dtype=torch.float64))}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the peak of one process")
def test_the_peak_of_a_training_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    path, size = tmp_path / "large.h5", 24_000  # 295 MB
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, count in {"train": size, "validation": 4, "test": 4}.items():
            shape, chunks = (count, 3, 64, 64), (min(5, count), 3, 64, 64)
            inputs = file.create_dataset(f"{name}/inputs", shape, "u1", chunks=chunks, compression="gzip")
            for begin in range(0, count, 500):
                end = min(count, begin + 500)
                inputs[begin:end] = draw.integers(0, 4, (end - begin, 3, 64, 64), dtype=np.uint8) * 60
            file[f"{name}/targets"] = np.arange(count) % 4
        file.attrs["classes"] = 4

    def run(how: str) -> dict[str, float]:
        result = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), how], capture_output=True, text=True, check=True, cwd=ROOT
        )
        found: dict[str, float] = json.loads(result.stdout)
        return found

    streamed, held = run("streamed"), run("held")
    assert streamed["weights"] == held["weights"]
    print(f"grown by {streamed['grown'] / 2**20:.0f} MiB streamed, {held['grown'] / 2**20:.0f} MiB held")
    assert held["grown"] > size * 3 * 64 * 64
    assert streamed["grown"] < 64 * 2**20  # blocks of the digest, batches, and what libraries allocate
