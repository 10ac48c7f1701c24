import hashlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data import Dataset, digits, ensure, read_dataset
from data.hdf5 import FileRefused

SIZES = {"train": 1257, "validation": 180, "test": 360}
SHA256 = "a355991153c74156ca7d74dd1a1188a00542b409d110108f5c2612caf4f4f839"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_DATA", str(tmp_path_factory.mktemp("data")))
        return read_dataset(ensure("digits"))


@pytest.fixture(scope="module")
def fixed() -> dict[str, list[int]]:
    return dict(json.loads((Path(digits.__file__).parent / "splits" / "digits.json").read_text()))


def test_golden_identity(dataset: Dataset) -> None:
    # Results are keyed by it. When it has to change, change it here and say why in the change log.
    assert dataset.sha256 == SHA256


def test_facts(dataset: Dataset) -> None:
    assert {name: split.inputs.shape for name, split in dataset.splits.items()} == {
        name: (size, 64) for name, size in SIZES.items()
    }
    assert (dataset.num_classes, dataset.input_shape) == (10, (64,))
    train = dataset.splits["train"].inputs.astype(np.float64)
    assert abs(train.mean()) < 1e-7
    assert abs(train.std() - 1) < 1e-7


def test_the_pixels_are_the_originals_under_one_affine_map(dataset: Dataset, fixed: dict[str, list[int]]) -> None:
    pixels, targets = load_digits(return_X_y=True)
    training_pixels = [Fraction(int(value)) for value in pixels[fixed["train"]].ravel()]
    mean = sum(training_pixels) / len(training_pixels)
    variance = sum((value - mean) ** 2 for value in training_pixels) / len(training_pixels)
    for name, split in dataset.splits.items():
        restored = split.inputs.astype(np.float64) * float(variance) ** 0.5 + float(mean)
        assert np.abs(restored - pixels[fixed[name]]).max() < 1e-5
        assert np.array_equal(split.targets, targets[fixed[name]])


def test_splits_are_a_partition_without_common_images(dataset: Dataset, fixed: dict[str, list[int]]) -> None:
    indices = [index for name in SIZES for index in fixed[name]]
    assert sorted(indices) == list(range(1797))
    images = np.concatenate([split.inputs for split in dataset.splits.values()])
    assert len(np.unique(images, axis=0)) == 1797


def test_splits_are_stratified(dataset: Dataset) -> None:
    counts = {name: np.bincount(split.targets, minlength=10) for name, split in dataset.splits.items()}
    total = sum(counts.values())
    for name, size in SIZES.items():
        tolerance = 2 if name == "train" else 1  # train gets what the other two leave
        assert np.abs(counts[name] - total * size / 1797).max() < tolerance


def test_the_splits_follow_the_rule_written_beside_them(fixed: dict[str, list[int]]) -> None:
    targets = load_digits().target
    for class_number in range(10):
        members = [int(index) for index in np.flatnonzero(targets == class_number)]
        members.sort(key=lambda index: hashlib.sha256(f"digits-{fixed['seed']}-{index}".encode()).hexdigest())
        split_of = {index: name for name in SIZES for index in fixed[name]}
        order = [("validation", "test", "train").index(split_of[index]) for index in members]
        assert order == sorted(order)


def test_another_collection_is_refused() -> None:
    with pytest.raises(FileRefused, match="splits 1797 examples, scikit-learn has 1796"):
        digits._split_indices(1796)
