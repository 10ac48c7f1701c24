import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data import StoredSplit, dataset_sha256, read_dataset, write_dataset
from data.hdf5 import FileRefused, open_sealed

RNG = np.random.default_rng(0)
PIXELS = {
    name: StoredSplit(RNG.integers(0, 256, (size, 3, 4, 4), dtype=np.uint8), np.arange(size) % 5)
    for name, size in (("train", 20), ("validation", 5), ("test", 10))
}
ATTRIBUTES: dict[str, Any] = {
    "classes": 5,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.1, 0.2, 0.3],
    "source": "made here",
    "licence": "CC0",
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "pixels.h5"
    write_dataset(path, PIXELS, ATTRIBUTES)
    return path


def user_file(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("_", "/")] = array
    return path


def test_what_was_written_is_read(written: Path) -> None:
    dataset = read_dataset(written)
    assert (dataset.name, dataset.num_classes, dataset.input_shape) == ("pixels", 5, (3, 4, 4))
    assert (dataset.source, dataset.licence) == ("made here", "CC0")
    assert dataset.moments == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert list(dataset.splits) == ["train", "validation", "test"]
    for name, split in dataset.splits.items():
        assert (split.inputs.dtype.name, split.targets.dtype.name) == ("uint8", "int64")
        assert len(split) == len(split.inputs)
        assert np.array_equal(split.inputs, PIXELS[name].inputs)
        assert np.array_equal(split.targets, PIXELS[name].targets)


def test_reading_pixels_takes_the_memory_of_pixels(tmp_path: Path) -> None:
    size = 2000
    pixels = np.zeros((size, 3, 32, 32), np.uint8)
    path = user_file(tmp_path / "many.h5", train_inputs=pixels, train_targets=np.arange(size) % 5)
    tracemalloc.start()
    dataset = read_dataset(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dataset.splits["train"].inputs.nbytes == pixels.nbytes
    assert peak_bytes < 1.2 * pixels.nbytes  # a copy as floats alone is four times as large


def test_token_ids_are_read_as_they_are(tmp_path: Path) -> None:
    path = user_file(tmp_path / "tokens.h5", train_inputs=np.arange(12).reshape(4, 3), train_targets=[0, 1, 2, 1])
    dataset = read_dataset(path)
    assert (dataset.input_shape, dataset.moments) == ((3,), None)
    assert dataset.splits["train"].inputs.dtype == np.int64
    assert dataset_sha256(path) == dataset.sha256


def test_the_file_is_sealed_and_its_bytes_repeat(written: Path, tmp_path: Path) -> None:
    with open_sealed(written) as file:
        assert sorted(file.attrs) == ["classes", "licence", "mean", "sha256", "source", "std"]
        assert file["train/inputs"].dtype == np.uint8
    write_dataset(tmp_path / "again.h5", dict(reversed(PIXELS.items())), dict(reversed(ATTRIBUTES.items())))
    assert (tmp_path / "again.h5").read_bytes() == written.read_bytes()


def test_identity_is_of_the_numbers_and_found_without_the_attribute(written: Path, tmp_path: Path) -> None:
    sha256 = read_dataset(written).sha256
    assert dataset_sha256(written) == sha256
    bare = tmp_path / "theirs.h5"
    with h5py.File(written) as source, h5py.File(bare, "w") as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update({key: value for key, value in source.attrs.items() if key != "sha256"})
    assert dataset_sha256(bare) == sha256
    assert read_dataset(bare).sha256 == sha256


def test_identity_is_believed_until_the_numbers_are_read(tmp_path: Path) -> None:
    path = user_file(tmp_path / "mine.h5", train_inputs=np.eye(4), train_targets=[0, 1, 2, 3])
    right = dataset_sha256(path)
    with h5py.File(path, "a") as file:
        file.attrs["sha256"] = "0" * 64
    assert dataset_sha256(path) == "0" * 64
    with pytest.raises(FileRefused, match=f"arrays with digest {right}. Expected: its attribute sha256: {'0' * 64}"):
        read_dataset(path)
    with h5py.File(path, "a") as file:
        file.attrs["sha256"] = "none"
    for read in (dataset_sha256, read_dataset):
        with pytest.raises(FileRefused, match="has sha256 = none"):
            read(path)


def test_a_user_file_needs_train_only(tmp_path: Path) -> None:
    path = user_file(tmp_path / "mine.h5", train_inputs=np.eye(4), train_targets=[0, 1, 2, 1], notes="hello")
    dataset = read_dataset(path)
    assert (dataset.name, dataset.num_classes, list(dataset.splits)) == ("mine", 3, ["train"])
    assert np.array_equal(dataset.splits["train"].inputs, np.eye(4))


def test_a_user_file_is_checked(tmp_path: Path) -> None:
    targets = [0, 1, 2, 1]
    nan = np.full((4, 2), np.nan)
    cases: dict[str, dict[str, Any]] = {
        r"has no data set 'targets' in /train.*Present: inputs\.": {"train_inputs": np.eye(4)},
        "has a data set 'train'. Expected: a group": {"train": np.eye(4)},
        "has no group 'train'": {"notes": "hello"},
        "has a split named 'Train'": {"Train_inputs": np.eye(4), "Train_targets": targets},
        "has a split named 'val'": {"train_inputs": np.eye(4), "train_targets": targets, "val_inputs": np.eye(4),
                                    "val_targets": targets},
        "values in train/inputs that are not finite": {"train_inputs": nan, "train_targets": targets},
        "of dtype int16": {"train_inputs": np.eye(4, dtype=np.int16), "train_targets": targets},
        "dtype object": {"train_inputs": ["a", "b"], "train_targets": [0, 1]},
    }  # fmt: skip
    for index, (message, arrays) in enumerate(cases.items()):
        path = user_file(tmp_path / f"{index}.h5", **arrays)
        with pytest.raises(FileRefused, match=message) as caught:
            read_dataset(path)
        assert str(caught.value).startswith(str(path))


def test_a_hostile_user_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = user_file(tmp_path / "mine.h5", train_targets=[0, 1])
    with h5py.File(path, "a") as file:
        file["train"].create_dataset("inputs", (2, 16), "u1", external=[("/etc/passwd", 0, 32)])
    for read in (dataset_sha256, read_dataset):
        with pytest.raises(FileRefused, match="/train/inputs has external storage"):
            read(path)


@pytest.mark.parametrize("key", sorted(ATTRIBUTES))
def test_what_espalier_writes_is_documented_in_full(tmp_path: Path, key: str) -> None:
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != key}
    with pytest.raises(FileRefused, match=f"would have no attribute '{key}'"):
        write_dataset(tmp_path / "pixels.h5", PIXELS, attributes)
    assert list(tmp_path.iterdir()) == []


def test_nothing_unreadable_is_written(tmp_path: Path) -> None:
    bad = {"train": StoredSplit(np.full((4, 2), np.inf), np.arange(4))}
    with pytest.raises(FileRefused, match="not finite"):
        write_dataset(tmp_path / "bad.h5", bad, {**ATTRIBUTES, "mean": 0.0, "std": 1.0})
    assert list(tmp_path.iterdir()) == []
