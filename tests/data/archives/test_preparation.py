import gzip
import hashlib
import io
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
from data.archives import Official, official, prepare
from data.hdf5 import FileRefused, open_sealed, read_array, read_texts
from tests.data.official_archives import (
    NUM_CLASSES,
    PER_CLASS,
    WNIDS,
    WRITERS,
    examples,
    folder_of,
    idx,
    idx_files,
    tiny_imagenet_members,
    write_archive,
)

FACTS = {"licence": "CC0", "source": "made here"}
KILLED_AT = """
import os, signal, sys
from pathlib import Path
import data
from data.archives import official
official.BLOCK_BYTES = int(sys.argv[4])
told = []
def tell(fraction, text):
    told.append(text.split()[0].strip(":"))
    if told.count(sys.argv[5]) > int(sys.argv[6]):
        os.kill(os.getpid(), signal.SIGKILL)
print(data.prepare(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), tell=tell, allow_other=True).num_resumed)
"""


def prepared(name: str, source: Path, out: Path, **options: Any) -> data.Dataset:
    data.prepare(name, source, out, tell=lambda *_: None, allow_other=True, **options)
    return data.read_dataset(out)


def small(name: str, source: Path) -> Official:
    """Return what would be published of a data set if the small archive were the official one."""
    archive = data.describe(name).archive
    assert archive is not None
    paths = [source] if source.is_file() else [source / file for file in archive.md5]
    md5 = {
        file: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for file, path in zip(archive.md5, paths, strict=True)
    }
    return replace(
        archive, md5=md5, num_examples={split: size * NUM_CLASSES[name] for split, size in PER_CLASS.items()}
    )


def official_order(name: str) -> dict[str, tuple[Any, Any]]:
    """Return images and class numbers as the official numbering has them, decoded by other means."""
    if name != "tinyimagenet":
        return {split: examples(name, split) for split in ("train", "test")}
    members = tiny_imagenet_members()
    found: dict[str, tuple[list[Any], list[int]]] = {"train": ([], []), "test": ([], [])}
    for target, wnid in enumerate(WNIDS):
        for number in (0, 9, 18):
            found["train"][0].append(pixels(members[f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{number}.JPEG"]))
            found["train"][1].append(target)
    for number, target in enumerate(examples(name, "test")[1]):
        found["test"][0].append(pixels(members[f"tiny-imagenet-200/val/images/val_{number}.JPEG"]))
        found["test"][1].append(target)
    return {split: (np.stack(images), np.array(targets)) for split, (images, targets) in found.items()}


def pixels(content: bytes) -> Any:
    return np.moveaxis(np.array(Image.open(io.BytesIO(content)).convert("RGB")), 2, 0)


@pytest.mark.parametrize("name", WRITERS)
def test_every_example_arrives_where_it_belongs(name: str, tmp_path: Path) -> None:
    dataset = prepared(name, write_archive(name, tmp_path), tmp_path / "out.h5")
    truth = official_order(name)
    seen: dict[str, list[int]] = {"train": [], "test": []}
    with open_sealed(tmp_path / "out.h5") as file:
        for split, part in dataset.splits.items():
            of = file[split]["source_index"].attrs["split"]
            index = read_array(file[split], "source_index")
            images, targets = truth[of]
            assert np.array_equal(part.inputs, images[index])
            assert np.array_equal(part.targets, targets[index])
            assert (np.diff(index) > 0).all()
            seen[of] += index.tolist()
            chunk = file[split]["inputs"].chunks
            assert chunk[1:] == dataset.input_shape  # whole images
            assert np.prod(chunk) <= 64 * 1024
    for split, index in seen.items():
        assert sorted(index) == list(range(len(truth[split][1])))


@pytest.mark.parametrize("name", WRITERS)
def test_the_validation_split_follows_the_documented_rule(name: str, tmp_path: Path) -> None:
    prepared(name, write_archive(name, tmp_path), tmp_path / "out.h5")
    with open_sealed(tmp_path / "out.h5") as file:
        index = read_array(file["validation"], "source_index").tolist()
    archive = data.describe(name).archive
    assert archive is not None
    targets = official_order(name)["train"][1]
    assert len(index) == len(targets) * archive.num_validation // archive.num_examples["train"]
    for target in range(NUM_CLASSES[name]):
        members = np.flatnonzero(targets == target).tolist()
        taken = sorted(set(index) & set(members))
        assert len(taken) == (1 if target < len(index) else 0)  # equal remainders: the lower classes
        ranked = sorted(members, key=lambda each: hashlib.sha256(f"{name}/{each}".encode()).hexdigest())
        assert taken == sorted(ranked[: len(taken)])


def test_names_of_classes_and_the_archive_are_recorded(tmp_path: Path) -> None:
    expected = {
        "cifar10": [f"class{number}" for number in range(10)],
        "cifar100": [f"fine{number}" for number in range(100)],
        "tinyimagenet": [f"{wnid} thing {wnid[-3:]}, object" for wnid in WNIDS],
    }
    for name, names in expected.items():
        source, out = write_archive(name, tmp_path), tmp_path / f"{name}.h5"
        prepared(name, source, out)
        with open_sealed(out) as file:
            assert read_texts(file, "class_names") == names
            md5 = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
            assert file.attrs["archive"] == f"{source.name} md5 {md5}"
            assert ("decoder" in file.attrs) == (name == "tinyimagenet")


@pytest.mark.parametrize("name", WRITERS)
def test_the_official_archive_needs_no_permission(name: str, tmp_path: Path) -> None:
    source, out = write_archive(name, tmp_path), tmp_path / "out.h5"
    published = small(name, source)
    found = prepare(name, published, FACTS, source, out, tell=lambda *_: None)
    assert sum(found.num_examples.values()) == sum(published.num_examples.values())
    assert data.read_dataset(out).source == "made here"
    fewer = replace(published, num_examples={**published.num_examples, "train": published.num_examples["train"] + 1})
    with pytest.raises(FileRefused, match=r"has \d+ train examples\. Expected: \d+1\."):
        prepare(name, fewer, FACTS, source, tmp_path / "other.h5", tell=lambda *_: None)
    assert not (tmp_path / "other.h5").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_another_archive_is_refused_unless_it_is_allowed(name: str, tmp_path: Path) -> None:
    source = write_archive(name, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileRefused, match=r"has md5 [0-9a-f]{32}\. Expected: md5 .* of the published .*--allow-other"):
        data.prepare(name, source, tmp_path / "out.h5", tell=lambda *_: None)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "block_images"), [("cifar10", 1), ("cifar10", 1000), ("mnist", 1), ("mnist", 7), ("tinyimagenet", 53)]
)
def test_the_bytes_do_not_depend_on_the_blocks(
    name: str, block_images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_archive(name, tmp_path)
    first = prepared(name, source, tmp_path / "first.h5")
    monkeypatch.setattr(official, "BLOCK_BYTES", block_images * int(np.prod(first.input_shape)))
    prepared(name, source, tmp_path / "second.h5")
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()


@pytest.mark.parametrize(("doing", "number"), [("checking", 0), ("decoding", 0), ("decoding", 3), ("writing", 1)])
@pytest.mark.parametrize("name", ["cifar10", "mnist", "tinyimagenet"])
def test_after_kill_9_the_same_call_goes_on_to_the_same_bytes(
    name: str, doing: str, number: int, tmp_path: Path
) -> None:
    source = write_archive(name, tmp_path)
    dataset = prepared(name, source, tmp_path / "undisturbed.h5")
    per_block = len(dataset.splits["train"]) // 3
    before = sorted(tmp_path.iterdir())
    block_bytes = per_block * int(np.prod(dataset.input_shape))
    command = [sys.executable, "-c", KILLED_AT, name, str(source), str(tmp_path / "out.h5"), str(block_bytes), doing]
    killed = subprocess.run([*command, str(number)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out.h5").exists()
    folder = tmp_path / "out.h5.partial"
    num_saved = len(list(folder.iterdir())) if folder.exists() else 0
    assert (num_saved > 0) == (number > 0)
    done = subprocess.run([*command, "1000"], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 0) == (number > 0)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out.h5"])


def interrupted(name: str, source: Path, out: Path, after: int) -> list[Path]:
    """Prepare until so many blocks are saved; return them."""
    folder = out.with_name(f"{out.name}.partial")

    def tell(fraction: float, text: str) -> None:
        if folder.exists() and len(list(folder.iterdir())) >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare(name, source, out, tell=tell, allow_other=True)
    return sorted(folder.iterdir())


def test_an_interrupt_leaves_blocks_and_another_archive_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "BLOCK_BYTES", 4 * 28 * 28)
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
    first = write_archive("mnist", tmp_path / "a")
    other = idx_files("mnist")
    other["train-labels-idx1-ubyte.gz"] = gzip.compress(gzip.decompress(other["train-labels-idx1-ubyte.gz"]), mtime=1)
    second = folder_of(tmp_path / "b" / "mnist", other)
    out = tmp_path / "out.h5"
    blocks = interrupted("mnist", first, out, 3)
    assert len(blocks) == 3
    assert data.prepare("mnist", second, out, tell=lambda *_: None, allow_other=True).num_resumed == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out.h5"]
    out.unlink()
    blocks = interrupted("mnist", first, out, 3)
    content = bytearray(blocks[1].read_bytes())
    content[-1] ^= 1
    blocks[1].write_bytes(content)
    found = data.prepare("mnist", first, out, tell=lambda *_: None, allow_other=True)
    assert found.num_resumed == 8  # a damaged block is decoded again
    assert np.array_equal(data.read_dataset(out).splits["test"].inputs, examples("mnist", "test")[0])


def test_an_interrupt_while_the_file_is_written_leaves_blocks_only(tmp_path: Path) -> None:
    source, out = write_archive("cifar10", tmp_path), tmp_path / "out.h5"

    def tell(fraction: float, text: str) -> None:
        if text.startswith("writing: 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare("cifar10", source, out, tell=tell, allow_other=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "out.h5.partial"]
    found = data.prepare("cifar10", source, out, tell=lambda *_: None, allow_other=True)
    assert found.num_resumed == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "out.h5"]


def test_a_refused_archive_removes_its_blocks_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "BLOCK_BYTES", 30 * 3 * 64 * 64)
    source = write_archive("tinyimagenet", tmp_path)
    content = source.read_bytes()
    source.write_bytes(content.replace(b"\xff\xda", b"\xff\xff", 400).replace(b"\xff\xff", b"\xff\xda", 399))
    out = tmp_path / "out.h5"
    (tmp_path / "out.h5.partial").mkdir()
    (tmp_path / "out.h5.partial" / "notes.txt").write_text("mine")
    with pytest.raises(FileRefused, match=r"damaged|bad image"):
        prepared("tinyimagenet", source, out)
    assert [path.name for path in (tmp_path / "out.h5.partial").iterdir()] == ["notes.txt"]
    assert not out.exists()


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    source = write_archive("tinyimagenet", tmp_path)
    data.prepare("tinyimagenet", source, tmp_path / "o.h5", tell=lambda *each: told.append(each), allow_other=True)
    assert all(0 <= fraction <= 1 for fraction, _ in told)
    texts = [text for _, text in told]
    assert texts[0] == "checking tiny-imagenet-200.zip"
    assert any(re.fullmatch(r"decoding: 800 of 800 images, [\d,]+ images/s, 0:00 left", text) for text in texts)
    assert re.fullmatch(r"writing: 800 of 800 images, [\d,]+ images/s, 0:00 left", texts[-1])


def test_too_few_examples_for_a_validation_split(tmp_path: Path) -> None:
    def cut(files: Mapping[str, bytes], images: Any, targets: Any) -> dict[str, bytes]:
        changed = {"train-images-idx3-ubyte.gz": idx(images), "train-labels-idx1-ubyte.gz": idx(targets)}
        return {**files, **changed}

    files = idx_files("mnist")
    images = np.zeros((10, 28, 28), np.uint8)
    one_each = cut(files, images, np.arange(10, dtype=np.uint8))
    with pytest.raises(FileRefused, match="has one training example of each class"):
        prepared("mnist", folder_of(tmp_path / "one", one_each), tmp_path / "out.h5")
    lacking = cut(files, images, np.array([0, 1, 2, 3, 4, 5, 6, 8, 9, 9], np.uint8))
    with pytest.raises(FileRefused, match=r"no training example of class 7\. Expected: examples of all 10 classes"):
        prepared("mnist", folder_of(tmp_path / "lacking", lacking), tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lacking", "one"]
