import gzip
import io
import os
import pickle
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data.archives.official import BLOCK_BYTES
from data.hdf5 import open_sealed, read_array
from tests.data.official_archives import NUM_CLASSES, cifar10_members, cifar100_members, records, tar_gz

Refused = Callable[[str, Path], str]
FOLDER = "cifar-10-batches-bin"
BATCH = f"{FOLDER}/data_batch_2.bin"


def changed(**members: bytes | None) -> dict[str, bytes]:
    """Return the members with some of them, by their stems, replaced or left out."""
    found = cifar10_members()
    for stem, content in members.items():
        name = next(each for each in found if each.startswith(f"{FOLDER}/{stem}."))
        if content is None:
            del found[name]
        else:
            found[name] = content
    return found


def with_member(path: Path, name: str, **facts: Any) -> Path:
    """Write the archive with one member more, at its beginning."""
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        content = facts.pop("content", b"")
        member.size = len(content)
        for key, value in facts.items():
            setattr(member, key, value)
        tar.addfile(member, io.BytesIO(content))
        for each, inside in cifar10_members().items():
            member = tarfile.TarInfo(each)
            member.size = len(inside)
            tar.addfile(member, io.BytesIO(inside))
    return path


LABELLED = b"\x0a" + bytes(3072)
CASES: dict[str, dict[str, bytes]] = {
    f"has no member '{BATCH}'. Expected: those of cifar-10-binary.tar.gz.": changed(data_batch_2=None),
    f"has no member '{FOLDER}/test_batch.bin'": changed(test_batch=None),
    f"has no member '{FOLDER}/batches.meta.txt'": changed(batches=None),
    f"has 3072 bytes in '{BATCH}'. Expected: whole records of 3073 bytes.": changed(data_batch_2=bytes(3072)),
    f"has 0 bytes in '{BATCH}'": changed(data_batch_2=b""),
    "has class number 10 in its train part. Expected: 0 to 9.": changed(data_batch_2=LABELLED),
    "has class number 255 in its test part": changed(test_batch=b"\xff" + bytes(3072)),
    "has no training example of class": changed(**{f"data_batch_{number}": bytes(3073) for number in range(1, 6)}),
    "names 9 classes. Expected: 10 different ones.": changed(batches=b"\n".join(b"c%d" % n for n in range(9))),
    "is damaged or cut off: 'ascii' codec": changed(batches=b"\xff" * 10),
}


@pytest.mark.parametrize("message", CASES)
def test_what_is_not_in_the_format_is_refused(message: str, tmp_path: Path, refused: Refused) -> None:
    assert message in refused("cifar10", tar_gz(tmp_path / "a.tar.gz", CASES[message]))


def test_a_fine_label_out_of_range(tmp_path: Path, refused: Refused) -> None:
    members = cifar100_members() | {"cifar-100-binary/train.bin": b"\x00\x64" + bytes(3072)}
    line = refused("cifar100", tar_gz(tmp_path / "a.tar.gz", members))
    assert line.startswith("has class number 100 in its train part. Expected: 0 to 99.")


def test_another_archive_of_the_same_kind(tmp_path: Path, refused: Refused) -> None:
    line = refused("cifar10", tar_gz(tmp_path / "a.tar.gz", cifar100_members()))
    assert "has no member" in line


LARGE = ("data_batch_1.bin", "test_batch.bin", "train.bin", "test.bin")


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_members_larger_than_any_header_and_than_a_block(name: str, label_bytes: int, tmp_path: Path) -> None:
    """The official ones have 10,000 to 50,000 records; these are images of one colour each."""
    number = np.arange(BLOCK_BYTES // 3072 + 100)
    images = np.broadcast_to((number % 251).astype(np.uint8)[:, None], (len(number), 3072))
    content = records(images, number % NUM_CLASSES[name], label_bytes)
    assert len(content) > BLOCK_BYTES
    members = cifar10_members() if name == "cifar10" else cifar100_members()
    large = [each for each in members if each.rpartition("/")[2] in LARGE]
    assert len(large) == 2  # one of each split
    rest = sum(len(members[each]) for each in members if "data_batch" in each and each not in large) // 3073
    archive = tar_gz(tmp_path / "a.tar.gz", members | dict.fromkeys(large, content))
    found = data.prepare(name, archive, tmp_path / "out.h5", tell=lambda *_: None, allow_other=True)
    assert found.num_examples["test"] == len(number)
    assert found.num_examples["train"] + found.num_examples["validation"] == len(number) + rest
    with open_sealed(tmp_path / "out.h5") as file:
        for split in ("train", "test"):
            index = read_array(file[split], "source_index")
            index = index[index < len(number)]  # those of the large member, which is the first one
            expected = np.broadcast_to((index % 251)[:, None, None, None], (len(index), 3, 32, 32))
            assert np.array_equal(file[split]["inputs"][: len(index)], expected)
            assert np.array_equal(read_array(file[split], "targets")[: len(index)], index % NUM_CLASSES[name])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_an_archive_of_the_official_size(name: str, label_bytes: int, tmp_path: Path) -> None:
    members = cifar10_members() if name == "cifar10" else cifar100_members()
    for each in members:
        if each.endswith(".bin"):
            number = np.arange(50_000 if each.endswith("/train.bin") else 10_000)
            images = np.broadcast_to((number % 251).astype(np.uint8)[:, None], (len(number), 3072))
            members[each] = records(images, number % NUM_CLASSES[name], label_bytes)
    archive = tar_gz(tmp_path / "a.tar.gz", members)
    del members
    tracemalloc.start()
    found = data.prepare(name, archive, tmp_path / "out.h5", tell=lambda *_: None, allow_other=True)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.num_examples == {"train": 45_000, "validation": 5_000, "test": 10_000}
    assert peak_bytes < 150 << 20
    dataset = data.read_dataset(tmp_path / "out.h5")
    assert np.array_equal(dataset.splits["test"].inputs[:, 0, 0, 0], np.arange(10_000) % 251)
    assert np.bincount(dataset.splits["train"].targets).tolist() == [45_000 // NUM_CLASSES[name]] * NUM_CLASSES[name]


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("../../etc/cron.d/x", {"content": b"x"}, "has a member that leads outside: '../../etc/cron.d/x'"),
        ("/etc/passwd", {"content": b"x"}, "has a member that leads outside: '/etc/passwd'"),
        ("a\\..\\..\\x", {"content": b"x"}, "has a member that leads outside"),
        ("C:x", {"content": b"x"}, "has a member that leads outside"),
        (BATCH, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "that is a link or a device"),
        (BATCH, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "that is a link or a device"),
        (BATCH, {"type": tarfile.CHRTYPE}, "that is a link or a device"),
        (BATCH, {"type": tarfile.FIFOTYPE}, "that is a link or a device"),
        (BATCH, {"content": bytes(3073)}, f"has two members '{BATCH}'"),
        ("bomb.bin", {"content": bytes(2 << 20)}, "has 2097152 bytes in 'bomb.bin'. Expected: at most 1048576."),
        ("\x1b[2Jx/..", {"content": b""}, r"leads outside: '\x1b[2Jx/..'"),
    ],
)
def test_a_hostile_member_is_refused(
    name: str, facts: dict[str, Any], message: str, tmp_path: Path, refused: Refused
) -> None:
    assert message in refused("cifar10", with_member(tmp_path / "a.tar.gz", name, **facts))


def test_a_bomb_takes_no_memory(tmp_path: Path, refused: Refused) -> None:
    """200 MiB of zeros: as a batch, as the name of a member, behind the last member."""
    size = 200 << 20
    header = tarfile.TarInfo(BATCH)
    header.size = 3073 * 60_000
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, size
    whole = gzip.decompress(tar_gz(tmp_path / "whole.tar.gz", cifar10_members()).read_bytes())
    expected = {
        "batch": (header.tobuf(), "goes on behind its last member"),
        "name": (long_name.tobuf(), "a header of 209715200 bytes, where 1048576 are the most"),
        "end": (whole, "goes on behind its last member"),
    }
    for name, (begin, message) in expected.items():
        path = tmp_path / f"{name}.tar.gz"
        with gzip.open(path, "wb", compresslevel=1) as packed:
            packed.write(begin)
            for _ in range(200):
                packed.write(bytes(1 << 20))
        tracemalloc.start()
        assert message in refused("cifar10", path)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 20 << 20


def test_a_batch_beyond_ten_times_the_official_number_is_not_read(tmp_path: Path, refused: Refused) -> None:
    header = tarfile.TarInfo(BATCH)
    header.size = 3073 * 500_001
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf()))
    assert f"has {header.size} bytes in '{BATCH}'. Expected: at most {3073 * 500_000}." in refused("cifar10", path)


def test_headers_of_headers_end_in_one_line(tmp_path: Path, refused: Refused) -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress((long_name.tobuf() + b"x".ljust(512, b"\0")) * 5000))
    assert "damaged or cut off" in refused("cifar10", path)


@pytest.mark.parametrize("seed", range(40))
def test_headers_that_were_changed_are_refused_or_read(seed: int, tmp_path: Path, refused: Refused) -> None:
    rng = random.Random(seed)
    content = bytearray(gzip.decompress(tar_gz(tmp_path / "a.tar.gz", cifar10_members()).read_bytes()))
    headers = [place for place in range(0, len(content), 512) if content[place : place + 5] == b"cifar"]
    for _ in range(3):
        begin = rng.choice(headers)
        content[begin + rng.randrange(512)] = rng.randrange(256)
        total = sum(content[begin : begin + 148]) + sum(content[begin + 156 : begin + 512]) + 8 * ord(" ")
        content[begin + 148 : begin + 156] = b"%06o\0 " % total  # the checksum of the header fits again
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content, 1))
    try:
        refused("cifar10", tmp_path / "a.tar.gz")
    except pytest.fail.Exception:  # it was taken: what was changed says nothing about an image
        assert len(data.read_dataset(tmp_path / "out.h5").splits["test"]) == 10


def test_any_truncation_is_seen(tmp_path: Path, refused: Refused) -> None:
    whole = tar_gz(tmp_path / "whole.tar.gz", cifar10_members()).read_bytes()
    path = tmp_path / "a.tar.gz"
    for size in (0, 1, 5, 100, len(whole) // 3, len(whole) // 2, len(whole) - 100, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "damaged or cut off" in refused("cifar10", path)
    for content in (b"no archive" * 100, gzip.compress(b"no tar" * 1000)):
        path.write_bytes(content)
        assert "damaged or cut off" in refused("cifar10", path)


def test_a_flipped_bit_is_seen_by_the_archives_own_checksum(tmp_path: Path, refused: Refused) -> None:
    content = bytearray(tar_gz(tmp_path / "whole.tar.gz", cifar10_members()).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "a.tar.gz").write_bytes(content)
    assert refused("cifar10", tmp_path / "a.tar.gz")


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


def test_the_python_version_is_refused_and_never_unpickled(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        members = {f"{folder}/{each}": pickle.dumps(_Payload()) for each in ("data_batch_1", "train", "batches.meta")}
        line = refused(name, tar_gz(tmp_path / f"{name}.tar.gz", members))
        archive = data.describe(name).archive
        assert archive is not None
        assert line.startswith("is the Python version, whose pickles are not read")
        assert f"Fetch {archive.example()} from https://www.cs.toronto.edu/~kriz/" in line
    assert not (tmp_path / "pwned").exists()
