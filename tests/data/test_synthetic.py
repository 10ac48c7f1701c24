import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from data import StoredSplit, synthetic

SIZES = {"num_train": 200, "num_validation": 40, "num_test": 200}


def built(**options: object) -> dict[str, StoredSplit]:
    return synthetic.build(synthetic.Options.model_validate(SIZES | options))[0]


def tensors(split: StoredSplit) -> tuple[Tensor, Tensor]:
    inputs = torch.from_numpy(split.inputs.astype(np.float32))
    return (inputs - 128) / 64 if split.inputs.dtype == np.uint8 else inputs, torch.from_numpy(split.targets)


def learnt_accuracy(model: nn.Module, splits: dict[str, StoredSplit]) -> float:
    inputs, targets = tensors(splits["train"])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    inputs, targets = tensors(splits["test"])
    return float((model(inputs).argmax(dim=1) == targets).float().mean())


@pytest.mark.parametrize(
    ("shape", "num_classes"), [((64,), 10), ((2,), 2), ((2,), 4), ((6, 5), 4), ((3, 8, 8), 20), ((1, 28, 28), 10)]
)
def test_an_mlp_learns_it(shape: tuple[int, ...], num_classes: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = (nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.ReLU(), nn.Linear(64, num_classes))
        found = learnt_accuracy(nn.Sequential(*layers), built(input_shape=shape, num_classes=num_classes))
    assert found > 1 / num_classes + 0.3


def test_a_convolutional_network_learns_it() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pooled = (nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        model = nn.Sequential(*pooled, nn.Flatten(), nn.Linear(128, 10))
        assert learnt_accuracy(model, built(input_shape=(3, 32, 32))) > 0.9


def test_tokens_tell_their_class() -> None:
    splits = built(input_shape=(12,), kind="tokens", num_tokens=50, num_classes=5)
    train, test = splits["train"], splits["test"]
    assert train.inputs.dtype == np.int64
    assert (train.inputs.min(), train.inputs.max()) == (0, 49)
    nearest = [train.targets[(train.inputs == row).sum(axis=1).argmax()] for row in test.inputs]
    assert (np.array(nearest) == test.targets).mean() > 0.9


@pytest.mark.parametrize("shape", [(64,), (2,), (6, 5), (1, 28, 28), (3, 1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["pixels", "floats", "tokens"])
def test_any_shape_of_any_kind(shape: tuple[int, ...], kind: str) -> None:
    splits = built(input_shape=shape, kind=kind, num_classes=3)
    for name, split in splits.items():
        size = SIZES[f"num_{name}"]
        assert split.inputs.shape == (size, *shape)
        assert split.targets.tolist() == [index % 3 for index in range(size)]
    for first, second in itertools.combinations(splits.values(), 2):
        assert not np.array_equal(first.inputs[:40], second.inputs[:40])


def test_the_shape_chooses_the_kind() -> None:
    assert built(input_shape=(3, 4, 4))["train"].inputs.dtype == np.uint8
    assert built(input_shape=(4, 4))["train"].inputs.dtype == np.float32


def test_classes_differ_in_their_means_by_the_templates_alone() -> None:
    splits = built(input_shape=(3, 16, 16), num_train=2000)
    train = splits["train"]
    means = np.stack([train.inputs[train.targets == number].mean(axis=0) for number in range(10)])
    templates = synthetic._templates(synthetic.Options(input_shape=(3, 16, 16)))
    assert np.abs(means - templates).mean() < 6  # noise of +-64 over 200 examples: 37 / sqrt(200) = 2.6, and clipping
    steps = np.abs(np.diff(templates, axis=-1))
    assert steps.max() <= 2 * synthetic._AMPLITUDE * 3 / 15 + 1  # linear between four nodes


def test_points_in_few_dimensions_do_not_coincide() -> None:
    for seed in range(5):
        points = synthetic._templates(synthetic.Options(input_shape=(2,), num_classes=6, seed=seed)).astype(float)
        distances = [np.hypot(*(a - b)) for a, b in itertools.combinations(points, 2)]
        assert min(distances) > 30


def test_a_split_is_the_beginning_of_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (built(input_shape=(3, 5, 5), num_train=size)["train"].inputs for size in (24, 200))
    assert np.array_equal(short, long[:24])
    monkeypatch.setattr(synthetic, "_BLOCK_NUMBERS", 16 * 75)  # whatever is computed at a time
    assert np.array_equal(built(input_shape=(3, 5, 5))["train"].inputs, long)


def test_the_numbers_are_the_same_for_ever() -> None:
    # Results are keyed by them. When they have to change, raise VERSION and say why in the change log.
    digest = hashlib.sha256()
    for shape in ((3, 6, 7), (9,)):
        for split in built(input_shape=shape, seed=5).values():
            digest.update(np.ascontiguousarray(split.inputs).tobytes())
    digest.update(built(input_shape=(4,), kind="tokens")["test"].inputs.tobytes())
    assert digest.hexdigest()[:16] == "4fbda511c4f32190"


def test_moments_are_those_of_the_training_pixels() -> None:
    splits, attributes = synthetic.build(synthetic.Options.model_validate({**SIZES, "input_shape": (3, 8, 8)}))
    scaled = splits["train"].inputs / 255
    assert np.allclose(attributes["mean"], scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    assert np.allclose(attributes["std"], scaled.std(axis=(0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"input_shape": ()}, "at least 1 item"),
        ({"input_shape": (3, 0)}, "greater than or equal to 1"),
        ({"num_classes": 1}, "greater than or equal to 2"),
        ({"num_train": 100_000, "input_shape": (3, 64, 64)}, r"makes 1\d{9} numbers; at most 268435456"),
        ({"nois": 3}, "Extra inputs"),
        ({"noise": 0.5}, "valid integer"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        synthetic.Options.model_validate(options)
