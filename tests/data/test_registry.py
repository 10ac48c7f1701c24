import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import data
import data.synthetic
from data import (
    UnknownDataset,
    available,
    dataset_path,
    dataset_sha256,
    describe,
    ensure,
    options_model,
    prepare,
    read_dataset,
)
from data.hdf5 import FileRefused, write_sealed
from suite.datasets import stored_splits
from tests.data.official_archives import write_archive


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_available_is_the_folder() -> None:
    assert available() == sorted(
        path.stem for path in Path(data.__file__).parent.iterdir() if path.suffix == ".py" and path.name[0] != "_"
    )
    assert "digits" in available()


def test_where_files_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ESPALIER_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert dataset_path("digits") == tmp_path / ".cache/espalier/data/digits.h5"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert dataset_path("digits") == tmp_path / ".cache/espalier/data/digits.h5"
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert dataset_path("digits") == Path("/scratch/cache/espalier/data/digits.h5")
    monkeypatch.setenv("ESPALIER_DATA", "")
    assert dataset_path("digits") == Path("/scratch/cache/espalier/data/digits.h5")
    monkeypatch.setenv("ESPALIER_DATA", "~/sets")
    assert dataset_path("digits") == tmp_path / "sets/digits.h5"


@pytest.mark.parametrize("name", ["digit", "_dataset", "../digits", "hdf5", ""])
def test_an_unknown_name(name: str, folder: Path) -> None:
    for call in (describe, dataset_path, ensure):
        with pytest.raises(UnknownDataset, match=r"Known: .*digits") as caught:
            call(name)
        assert not isinstance(caught.value, KeyError)
        assert str(caught.value).startswith(f"No data set named {name!r}.")
        assert ("Did you mean 'digits'?" in str(caught.value)) == (name in ("digit", "../digits"))
    assert not folder.exists()


@pytest.mark.parametrize("name", available())
def test_a_data_set_is_described(name: str) -> None:
    description = describe(name)
    assert description.name == name
    for line in (description.description, description.licence, description.source):
        assert line.strip() == line != ""
        assert "\n" not in line


@pytest.mark.parametrize("name", [name for name in available() if describe(name).archive is None])
def test_contract_of_a_data_set_that_is_written_on_first_use(name: str, folder: Path) -> None:
    description = describe(name)
    path = ensure(name)
    assert path == dataset_path(name)
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert re.fullmatch(name + r"-[0-9a-f]{8}" * (options_model(name) is not None), path.stem)
    dataset = read_dataset(path)
    assert (dataset.name, description.name) == (path.stem, name)
    assert (dataset.input_shape, dataset.num_classes) == (description.input_shape, description.num_classes)
    assert dataset.sha256 == dataset_sha256(path)
    assert (dataset.licence, dataset.source) == (description.licence, description.source)
    assert set(dataset.splits) == {"train", "validation", "test"}
    assert set(np.unique(dataset.splits["train"].targets)) == set(range(dataset.num_classes))
    train = stored_splits(path, "cpu")["train"].part(slice(None)).network_inputs().numpy()
    assert abs(train.mean(dtype=np.float64)) < 0.5
    assert 0.5 < train.std(dtype=np.float64) < 2.0
    content = path.read_bytes()
    path.unlink()
    assert ensure(name).read_bytes() == content


@pytest.mark.parametrize("name", [name for name in available() if describe(name).archive])
def test_contract_of_a_data_set_that_needs_an_archive(name: str, folder: Path, tmp_path: Path) -> None:
    official = describe(name).archive
    assert official is not None
    with pytest.raises(FileRefused, match=rf"{name}.h5 does not exist.* from https?://") as caught:
        ensure(name)
    assert str(caught.value).endswith(f"run: espalier data prepare {name} --from {official.example()}.")
    assert not folder.exists()
    archive = write_archive(name, tmp_path)
    prepared = prepare(name, archive, tell=lambda *_: None, allow_other=True)
    assert prepared.path == dataset_path(name) == ensure(name) == folder / f"{name}.h5"
    assert [entry.name for entry in folder.iterdir()] == [f"{name}.h5"]
    dataset = read_dataset(prepared.path)
    assert dataset.name == name
    assert dataset.sha256 == dataset_sha256(prepared.path)
    assert dataset.licence == describe(name).licence
    assert dataset.source == f"{describe(name).source}; not from the published archive"
    assert (dataset.num_classes, dataset.input_shape) == (official.num_classes, official.image_shape)
    assert dataset.moments == (official.mean, official.std)
    assert {split: len(part) for split, part in dataset.splits.items()} == prepared.num_examples
    assert set(np.unique(dataset.splits["train"].targets)) == set(range(dataset.num_classes))
    with pytest.raises(FileRefused, match="is there already"):
        prepare(name, archive, tell=lambda *_: None, allow_other=True)


def test_a_damaged_file_from_an_archive_names_the_command(folder: Path, tmp_path: Path) -> None:
    archive = write_archive("mnist", tmp_path)
    path = prepare("mnist", archive, tell=lambda *_: None, allow_other=True).path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileRefused, match=rf"truncated.*Delete {path}: espalier data prepare mnist --from FOLDER"):
        ensure("mnist")


def test_a_data_set_without_an_archive_is_not_prepared(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownDataset, match=r"'digits' needs no archive.*Those that do: cifar10, cifar100"):
        prepare("digits", tmp_path, tell=lambda *_: None)


def test_a_file_is_written_once(folder: Path) -> None:
    before = ensure("digits").stat()
    after = ensure("digits").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_file_is_reported_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    path = folder / "digits.h5"
    write_sealed(path, lambda file: file.create_group("train"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=rf"is damaged.*Delete {path}: the next use"):
        ensure("digits")
    assert path.read_bytes() == content
    with h5py.File(path, "w"):
        pass
    with pytest.raises(FileRefused, match=rf"no seal.*Delete {path}"):
        ensure("digits")


def test_processes_that_race_all_win(folder: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from data import ensure, read_dataset; print(read_dataset(ensure('digits')).sha256)",
    ]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 2
    assert set(answers) == {dataset_sha256(folder / "digits.h5")}
    assert [entry.name for entry in folder.iterdir()] == ["digits.h5"]


def test_each_set_of_options_has_a_file_of_its_own(folder: Path) -> None:
    first, second = (data.synthetic.Options(input_shape=(5,), num_train=30, seed=seed) for seed in (0, 1))
    assert dataset_path("synthetic", first) == dataset_path("synthetic", first.model_copy())
    assert dataset_path("synthetic") == dataset_path("synthetic", data.synthetic.Options())
    assert ensure("synthetic", first) != ensure("synthetic", second)
    assert len(list(folder.iterdir())) == 2
    assert describe("synthetic", first).input_shape == (5,)


def test_another_version_is_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataset_path("synthetic")
    monkeypatch.setattr(data.synthetic, "VERSION", 2)
    assert dataset_path("synthetic") != before
    assert not folder.exists()


def test_options_of_another_data_set() -> None:
    with pytest.raises(TypeError, match="are no options of data set 'digits'"):
        dataset_path("digits", data.synthetic.Options())


def test_what_a_file_will_hold_is_known_without_it(folder: Path) -> None:
    digits = data.expected("digits")
    assert not folder.exists()
    stored = read_dataset(ensure("digits"))
    assert digits.sha256 == stored.sha256
    assert (digits.input_shape, digits.num_classes) == (stored.input_shape, stored.num_classes)
    assert digits.num_examples == {name: len(split) for name, split in stored.splits.items()}
    assert not digits.command


@pytest.mark.parametrize(
    ("name", "shape", "classes", "counts"),
    [
        ("cifar10", (3, 32, 32), 10, (45_000, 5_000, 10_000)),
        ("cifar100", (3, 32, 32), 100, (45_000, 5_000, 10_000)),
        ("tinyimagenet", (3, 64, 64), 200, (90_000, 10_000, 10_000)),
        ("mnist", (1, 28, 28), 10, (55_000, 5_000, 10_000)),
    ],
)
def test_what_an_archive_will_give_is_known_without_it(
    name: str, shape: tuple[int, ...], classes: int, counts: tuple[int, ...], folder: Path
) -> None:
    found = data.expected(name)
    assert (found.input_shape, found.num_classes, found.dtype, found.sha256) == (shape, classes, "uint8", None)
    assert tuple(found.num_examples[split] for split in ("train", "validation", "test")) == counts
    assert found.command.startswith(f"espalier data prepare {name} --from ")
    assert not folder.exists()
