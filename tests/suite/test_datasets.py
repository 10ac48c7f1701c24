from pathlib import Path

import numpy as np
import pytest
import torch

from data import StoredSplit, read_dataset, write_dataset
from data.hdf5 import FileRefused
from suite.datasets import locate, training_splits
from suite.errors import UserError


def test_a_data_set_by_path(tiny_data: Path) -> None:
    found = locate(str(tiny_data))
    assert (found.path, found.input_shape, found.num_classes, found.num_train) == (tiny_data, (6,), 3, 160)
    assert found.input_dtype == torch.float32
    assert (found.spec.name, found.spec.sha256) == ("clouds", read_dataset(tiny_data).sha256)


def test_a_data_set_by_name_is_written_on_first_use(data_folder: Path) -> None:
    found = locate("digits")
    assert found.path == data_folder / "digits.h5"
    assert (found.input_shape, found.num_classes, found.num_train) == ((64,), 10, 1257)


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No data set named 'digit'\. Did you mean 'digits'\?"):
        locate("digit")
    with pytest.raises(FileRefused, match=r"none\.h5 does not exist"):
        locate(str(tmp_path / "none.h5"))


def test_splits_are_tensors_of_the_stored_numbers(tiny_data: Path) -> None:
    dataset = read_dataset(tiny_data)
    splits = training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu")
    assert {name: len(split.targets) for name, split in splits.items()} == {"train": 160, "validation": 40, "test": 50}
    for name, split in splits.items():
        assert split.network_inputs() is split.inputs
        assert np.array_equal(split.inputs.numpy(), dataset.splits[name].inputs)
        assert np.array_equal(split.targets.numpy(), dataset.splits[name].targets)


def test_token_ids_reach_the_network_as_they_are(tmp_path: Path) -> None:
    path, tokens = tmp_path / "tokens.h5", np.arange(12).reshape(4, 3)
    split = StoredSplit(tokens, np.arange(4) % 3)
    splits = dict.fromkeys(("train", "validation", "test"), split)
    write_dataset(path, splits, {"classes": 3, "source": "", "licence": ""})
    assert locate(str(path)).input_dtype == torch.int64
    train = training_splits(path, read_dataset(path).sha256, "cpu")["train"]
    assert np.array_equal(train.network_inputs().numpy(), tokens)


def test_training_needs_all_three_splits(tmp_path: Path) -> None:
    path = tmp_path / "two.h5"
    split = StoredSplit(np.zeros((4, 6), np.float32), np.arange(4) % 3)
    write_dataset(path, {"train": split, "test": split}, {"classes": 3, "source": "", "licence": ""})
    with pytest.raises(UserError, match=r"two\.h5 has no split 'validation'\. Expected: train, validation and test"):
        training_splits(path, read_dataset(path).sha256, "cpu")


def test_each_set_of_data_options_is_a_data_set_of_its_own(data_folder: Path) -> None:
    options = {"input_shape": [3, 8, 8], "num_classes": 20, "num_train": 40}
    found = locate("synthetic", options)
    assert (found.input_shape, found.num_classes, found.num_train) == ((3, 8, 8), 20, 40)
    assert found.input_dtype == torch.float32
    assert found.path.parent == data_folder
    assert found.spec.name == found.path.stem
    assert locate("synthetic", options).spec == found.spec
    assert locate("synthetic", options | {"seed": 1}).spec != found.spec


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        (
            "synthetic",
            {"num_clases": 3},
            r"data_options of synthetic: unknown key 'num_clases'\. Did you mean 'num_classes'\? Known: input_shape, ",
        ),
        ("synthetic", {"num_classes": "ten"}, r"data_options of synthetic: num_classes = 'ten': .*integer"),
        ("synthetic", {"num_train": 10**9}, r"data_options of synthetic: input_shape = .* at most 268435456"),
        ("digits", {"seed": 3}, r"data_options \(seed\) beside data = 'digits': it has none\. Leave them out\."),
        ("my/own.h5", {"seed": 3}, r"data_options \(seed\) beside data = 'my/own\.h5': a file has none\. Leave"),
        ("sinthetic", {"seed": 3}, r"No data set named 'sinthetic'\. Did you mean 'synthetic'\?"),
    ],
)
def test_data_options_that_are_refused(name: str, options: dict[str, object], line: str, data_folder: Path) -> None:
    before = set(data_folder.iterdir())
    with pytest.raises(UserError, match=line) as caught:
        locate(name, options)
    assert "\n" not in str(caught.value)
    assert set(data_folder.iterdir()) == before
