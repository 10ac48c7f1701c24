import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import data
from data.archives.checksum import check_archive
from data.hdf5 import FileRefused
from tests.data.official_archives import write_archive

Refused = Callable[[str, Path], str]
ARCHIVES = {name: archive for name in data.available() if (archive := data.describe(name).archive)}


@pytest.mark.parametrize("name", ARCHIVES)
def test_digests_are_stated_in_full(name: str) -> None:
    official = ARCHIVES[name]
    for digest in (*official.md5.values(), *official.with_pickles.values()):
        assert len(bytes.fromhex(digest)) == 16
    assert len({*official.md5.values(), *official.with_pickles.values()}) == len(official.md5) + len(
        official.with_pickles
    )
    assert official.url.startswith("http")


def test_no_two_data_sets_share_a_file() -> None:
    digests = [digest for official in ARCHIVES.values() for digest in official.md5.values()]
    assert len(set(digests)) == len(digests)


def test_the_published_archive_of_pickles_is_known_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"pickles")
    md5 = hashlib.md5(b"pickles", usedforsecurity=False).hexdigest()
    official = replace(ARCHIVES["cifar10"], with_pickles={path.name: md5})
    for allow_other in (False, True):
        with pytest.raises(FileRefused, match=r"is the Python version.*Fetch cifar-10-binary\.tar\.gz from"):
            check_archive(path, official, allow_other, lambda *_: None)


@pytest.mark.parametrize("allow_other", [False, True])
def test_a_file_of_another_data_set_is_refused_and_named(tmp_path: Path, allow_other: bool) -> None:
    folder = write_archive("mnist", tmp_path)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    others = {hashlib.md5(labels.read_bytes(), usedforsecurity=False).hexdigest(): "mnist"}
    with pytest.raises(FileRefused) as error:
        check_archive(folder, ARCHIVES["fashionmnist"], allow_other, lambda *_: None, others)
    if not allow_other:  # the first file is as wrong, and no other data set's
        assert "train-images" in str(error.value)
        return
    line = str(error.value)
    assert line.startswith(f"{labels} is published as part of data set 'mnist'. Expected: the published train-images")
    assert line.endswith(f"espalier data prepare mnist --from {folder}.")


def test_every_data_set_knows_what_is_published_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def take(name: str, *_: object, others: dict[str, str], **__: object) -> None:
        given[name] = others

    monkeypatch.setattr(data._registry, "prepare_archive", take)
    for name in ARCHIVES:
        data.prepare(name, tmp_path, tmp_path / "out.h5", tell=lambda *_: None)
    for name, others in given.items():
        published = {digest: each for each in ARCHIVES if each != name for digest in ARCHIVES[each].md5.values()}
        assert published.items() <= others.items()
        assert not set(ARCHIVES[name].md5.values()) & set(others)
    assert given["fashionmnist"]["f68b3c2dcbeaaa9fbdd348bbdeb94873"] == "mnist"


def test_files_that_are_not_there(tmp_path: Path, refused: Refused) -> None:
    assert refused("cifar10", tmp_path / "no.tar.gz").startswith("does not exist. Expected: the published cifar-10-b")
    assert refused("cifar10", tmp_path).startswith("is a folder")
    assert refused("mnist", tmp_path / "no").startswith("does not exist. Expected: the folder that holds train-images")
    folder = write_archive("mnist", tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert refused("cifar10", tmp_path / "pipe").startswith("is not a regular file")
    images = folder / "train-images-idx3-ubyte.gz"
    assert refused("mnist", images).startswith("is not a folder")
    images.unlink()
    assert "train-images-idx3-ubyte.gz does not exist" in refused("mnist", folder)
