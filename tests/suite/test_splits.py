"""Pixels that stay uint8 against the same data set normalised on reading: the same bits, everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data import StoredSplit, read_dataset, write_dataset
from suite.datasets import locate, training_splits
from suite.network import check_logits, prunable_weights
from suite.networks.loaded import Network
from suite.problem import Evaluation, evaluate
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training.flops import forward_flops
from suite.training.loop import History, train

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SHAPE, NUM_CLASSES = (3, 8, 8), 3
Kept = dict[str, dict[str, Split]]


def normalised_on_reading(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """How a whole data set would be normalised in memory, by numpy."""
    channels = (-1, *(1,) * (pixels.ndim - 2))
    inputs = pixels.astype(np.float32)
    inputs /= np.float32(255)
    inputs -= np.float32(mean).reshape(channels)
    inputs /= np.float32(std).reshape(channels)
    return inputs


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The same splits from a file of pixels and from a file of the floats that they stand for."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pixels")
    prototypes = rng.integers(0, 256, (NUM_CLASSES, *SHAPE))
    attributes = {"classes": NUM_CLASSES, "mean": MEAN, "std": STD, "source": "made here", "licence": "CC0"}
    files: dict[str, dict[str, StoredSplit]] = {"pixels": {}, "floats": {}}
    for name, size in {"train": 150, "validation": 40, "test": 50}.items():
        targets = np.arange(size) % NUM_CLASSES
        pixels = ((prototypes[targets] + 3 * rng.integers(0, 256, (size, *SHAPE))) // 4).astype(np.uint8)
        files["pixels"][name] = StoredSplit(pixels, targets)
        files["floats"][name] = StoredSplit(normalised_on_reading(pixels, MEAN, STD), targets)
    found = {}
    for kind, splits in files.items():
        path = folder / f"{kind}.h5"
        write_dataset(path, splits, attributes)
        found[kind] = training_splits(path, read_dataset(path).sha256, "cpu")
    return found


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, NUM_CLASSES)
        )


def both(kept: Kept, found: Callable[[dict[str, Split]], Any]) -> tuple[Any, Any]:
    return found(kept["pixels"]), found(kept["floats"])


@pytest.mark.parametrize("shape", [(256, 3), (256, 3, 2), (256, 3, 2, 2)])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.0,), (1.0,)), ((1 / 3,), (0.1,))])
def test_every_pixel_is_normalised_as_numpy_does_it(shape: tuple[int, ...], mean: Any, std: Any) -> None:
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
    found = Normalisation(mean, std)(torch.from_numpy(pixels))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), normalised_on_reading(pixels, mean, std))


def test_pixels_stay_uint8_and_batches_are_floats(kept: Kept) -> None:
    for name, split in kept["pixels"].items():
        floats = kept["floats"][name]
        assert split.inputs.dtype == split.part(slice(3)).inputs.dtype == torch.uint8
        assert 4 * split.inputs.nbytes == floats.inputs.nbytes
        assert torch.equal(split.network_inputs(), floats.inputs)
        assert floats.network_inputs() is floats.inputs
        chosen = torch.tensor([7, 0, 7])
        assert torch.equal(split.part(chosen).network_inputs(), floats.inputs[chosen])


def test_parts_are_all_examples_in_their_order() -> None:
    split = Split(torch.arange(10).unsqueeze(1), torch.arange(10) % 3)
    parts = [*split.parts(4)]
    assert [len(part.targets) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part.inputs for part in parts]), split.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), split.targets)


def test_training_and_evaluation_give_the_same_bits(kept: Kept) -> None:
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05, l1=1e-4)

    def trained(splits: dict[str, Split]) -> tuple[History, dict[str, Tensor], list[Evaluation]]:
        model = network()
        history = train(model, splits, recipe, 0)
        return history, model.state_dict(), [evaluate(model, split, batch_size=37) for split in splits.values()]

    (history, state, evaluations), (other_history, other_state, other_evaluations) = both(kept, trained)
    assert history == other_history
    assert evaluations == other_evaluations
    assert evaluations[0].accuracy > 0.5
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hessian_products_give_the_same_bits(dtype: str, kept: Kept) -> None:
    dim = sum(weight.numel() for weight in prunable_weights(network()).values())
    vector = torch.randn(dim, generator=torch.Generator().manual_seed(0), dtype=getattr(torch, dtype))

    def products(splits: dict[str, Split]) -> list[Tensor]:
        whole = Network(network().eval(), splits)
        part = whole.with_train_examples(70, 3)
        assert part.splits["train"].inputs.dtype == splits["train"].inputs.dtype
        operators = [whole.hessian(dtype), part.hessian(dtype)]
        operators += [whole.hessian(dtype, shard=(rank, 2)) for rank in range(2)]
        return [operator.matvec(vector) for operator in operators]

    pixels, floats = both(kept, products)
    assert all(torch.equal(one, other) for one, other in zip(pixels, floats, strict=True))
    assert not torch.equal(pixels[0], pixels[1])


def test_the_loss_tolerance_gives_the_same_bits(kept: Kept) -> None:
    pixels, floats = both(kept, lambda splits: Network(network().eval(), splits).loss_tolerance_nats())
    assert pixels == floats > 0


def test_a_network_is_tried_and_counted_on_normalised_pixels(kept: Kept) -> None:
    assert [*forward_flops(network(), kept["pixels"]["train"]).values()] == [2 * 4 * 27 * 36, 2 * 144 * NUM_CLASSES]
    check_logits(network(), kept["pixels"]["train"].part(slice(2)).network_inputs(), NUM_CLASSES, "network")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_normalises_as_the_cpu_does(kept: Kept) -> None:
    pixels = kept["pixels"]["train"]
    there = Split(pixels.inputs.cuda(), pixels.targets.cuda(), pixels.normalisation)
    assert torch.equal(there.network_inputs().cpu(), pixels.network_inputs())


def test_a_pixel_file_of_one_scale_for_all_channels(tmp_path: Path) -> None:
    split = StoredSplit(np.arange(24, dtype=np.uint8).reshape(4, 6), np.arange(4) % 3)
    path = tmp_path / "flat.h5"
    attributes = {"classes": 3, "mean": 0.25, "std": 0.5, "source": "", "licence": ""}
    write_dataset(path, dict.fromkeys(("train", "validation", "test"), split), attributes)
    assert locate(str(path)).input_dtype == torch.float32
    train_split = training_splits(path, read_dataset(path).sha256, "cpu")["train"]
    expected = normalised_on_reading(split.inputs, (0.25,), (0.5,))
    assert np.array_equal(train_split.network_inputs().numpy(), expected)
