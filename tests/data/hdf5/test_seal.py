import hashlib
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from data.hdf5 import (
    USER_BLOCK_BYTES,
    FileRefused,
    open_guarded,
    open_sealed,
    read_array,
    read_text,
    sealed_image,
    verify_seal,
    write_array,
    write_rows,
    write_sealed,
    write_sealed_on_disk,
    write_text,
)

VALUES = np.linspace(0.0, 1.0, 5000).reshape(50, 100)


def build(file: h5py.File) -> None:
    file.attrs["schema"] = 1
    file.attrs["title"] = "grüße"
    write_text(file, "config", '{"seed": 0}')
    group = file.create_group("metrics/accuracy")
    write_array(group, "values", VALUES, unit="fraction", direction="higher")
    write_array(group, "last", 0.5)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "cell.h5"
    write_sealed(path, build)
    return path


def refused(path: Path) -> str:
    with pytest.raises(FileRefused) as caught, open_sealed(path):
        pass
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_what_was_written_is_read(sealed: Path) -> None:
    for opened in (open_sealed, open_guarded):
        with opened(sealed) as file:
            assert np.array_equal(read_array(file, "metrics/accuracy/values"), VALUES)
            assert read_text(file, "config") == '{"seed": 0}'
            assert file.attrs["title"] == "grüße"
            assert file.mode == "r"
    assert os.listdir(sealed.parent) == ["cell.h5"]


def test_the_seal_is_the_digest_of_the_rest(sealed: Path) -> None:
    content = sealed.read_bytes()
    line = re.fullmatch(rb"espalier sha256=([0-9a-f]{64}) size_bytes=(\d+)\n\0+", content[:USER_BLOCK_BYTES])
    assert line is not None
    assert line[1].decode() == hashlib.sha256(content[USER_BLOCK_BYTES:]).hexdigest()
    assert int(line[2]) == len(content)


def test_a_sealed_file_is_a_plain_hdf5_file(sealed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w", userblock_size=USER_BLOCK_BYTES) as file:
        build(file)
    assert plain.read_bytes()[USER_BLOCK_BYTES:] == sealed.read_bytes()[USER_BLOCK_BYTES:]
    with h5py.File(sealed, "r") as file:
        assert file.userblock_size == USER_BLOCK_BYTES
        assert file["metrics/accuracy/last"][()] == 0.5


def test_same_content_same_bytes_at_another_time_in_another_process() -> None:
    code = (
        "import hashlib, runpy, sys; from data.hdf5 import sealed_image; "
        "print(hashlib.sha256(sealed_image(runpy.run_path(sys.argv[1])['build'])).hexdigest())"
    )
    first = sealed_image(build)
    time.sleep(1.05)  # HDF5 stores times in whole seconds
    assert sealed_image(build) == first
    there = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(first).hexdigest()


def test_a_file_that_is_built_on_disk_has_the_same_bytes(tmp_path: Path) -> None:
    write_sealed_on_disk(tmp_path / "disk.h5", build)
    assert (tmp_path / "disk.h5").read_bytes() == sealed_image(build)
    assert os.listdir(tmp_path) == ["disk.h5"]


def build_rows(file: h5py.File, block_rows: int = 7) -> None:
    file.attrs["schema"] = 1
    blocks = (VALUES[start : start + block_rows] for start in range(0, len(VALUES), block_rows))
    write_rows(file.create_group("train"), "inputs", blocks, VALUES.shape, VALUES.dtype, chunk_bytes=4000)
    write_array(file, "after", VALUES[0])


@pytest.mark.parametrize("block_rows", [1, 50])
def test_rows_leave_no_trace_of_the_room_that_was_reserved(block_rows: int, tmp_path: Path) -> None:
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    write_sealed_on_disk(one, build_rows)
    write_sealed_on_disk(other, lambda file: build_rows(file, block_rows))
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size < VALUES.nbytes + 20_000
    with open_sealed(one) as file:
        assert np.array_equal(read_array(file, "train/inputs"), VALUES)
        assert np.array_equal(read_array(file, "after"), VALUES[0])


def test_a_build_on_disk_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cell.h5"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_sealed_on_disk(path, lambda file: file.attrs.__setitem__("x", 1 // 0))
    with pytest.raises(FileRefused, match="soft link"):
        write_sealed_on_disk(path, lambda file: file.__setitem__("away", h5py.SoftLink("/elsewhere")))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["cell.h5"]


def test_building_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sealed_image(build)
    with pytest.raises(ZeroDivisionError):
        sealed_image(lambda file: file.attrs.__setitem__("x", 1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_two_images_may_be_built_at_once() -> None:
    def nested(file: h5py.File) -> None:
        write_array(file, "inner", np.frombuffer(sealed_image(build), np.uint8))

    with h5py.File.in_memory(file_image=sealed_image(nested)) as file:
        assert file["inner"][()].tobytes() == sealed_image(build)


def test_what_the_guard_refuses_is_never_committed(tmp_path: Path) -> None:
    path = tmp_path / "cell.h5"
    with pytest.raises(FileRefused, match="soft link"):
        write_sealed(path, lambda file: file.__setitem__("away", h5py.SoftLink("/elsewhere")))
    assert list(tmp_path.iterdir()) == []


def test_any_flipped_bit_is_seen(sealed: Path) -> None:
    whole = sealed.read_bytes()
    places = [*random.Random(2).sample(range(len(whole)), 50), 0, 9, 40, 511, 512, 513, len(whole) - 1]
    for place in places:
        for bit in (0, 5):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            sealed.write_bytes(damaged)
            message = refused(sealed)
            assert any(word in message for word in ("damaged", "no seal", "truncated", "too long")), message
    sealed.write_bytes(whole)
    verify_seal(sealed)


def test_a_flipped_bit_is_seen_without_asking_for_a_seal(sealed: Path) -> None:
    damaged = bytearray(sealed.read_bytes())
    damaged[-100] ^= 1
    sealed.write_bytes(damaged)
    with pytest.raises(FileRefused, match="is damaged"), open_guarded(sealed):
        pass
    with open_guarded(sealed, check_seal=False) as file:
        assert "config" in file


def test_any_truncation_is_seen(sealed: Path) -> None:
    whole = sealed.read_bytes()
    for size in [*random.Random(3).sample(range(1, len(whole)), 50), 1, 8, 511, 512, 520, len(whole) - 1]:
        sealed.write_bytes(whole[:size])
        message = refused(sealed)
        if size >= USER_BLOCK_BYTES:
            assert f"is truncated: it has {size} bytes. Expected: {len(whole)} bytes." in message
        with pytest.raises(FileRefused), open_guarded(sealed):
            pass


def test_appended_bytes_are_seen(sealed: Path) -> None:
    sealed.write_bytes(sealed.read_bytes() + b"\0")
    assert "too long" in refused(sealed)


def test_a_file_without_a_seal(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        build(file)
    assert "carries no seal" in refused(path)
    with open_guarded(path) as file:
        assert np.array_equal(read_array(file, "metrics/accuracy/values"), VALUES)


@pytest.mark.parametrize("size", [1, 100, 512, 600, 2000, 5000])
def test_a_truncated_file_without_a_seal(tmp_path: Path, size: int) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        build(file)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FileRefused), open_guarded(path):
        pass


@pytest.mark.parametrize("opened", [open_sealed, open_guarded])
def test_things_that_are_no_hdf5_file(tmp_path: Path, opened: object) -> None:
    assert callable(opened)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("accuracy,0.97\n" * 100)
    (tmp_path / "seal-only").write_bytes(sealed_image(build)[:USER_BLOCK_BYTES])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    cases = {
        "folder": "is a folder",
        "empty": "is empty",
        "text": "is not an HDF5 file",
        "seal-only": "is truncated",
        "pipe": "is not a regular file",
        "dangling": "does not exist",
        "missing": "does not exist",
        "text/below": "cannot be read",
    }
    for name, fault in cases.items():
        with pytest.raises(FileRefused, match=fault), opened(tmp_path / name):
            pass


def test_a_file_that_may_not_be_read(sealed: Path) -> None:
    root = os.geteuid() == 0
    sealed.chmod(0o000)
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        message = refused(sealed)
    finally:
        if root:
            os.seteuid(0)
    assert "may not be read by this user" in message


def test_an_error_of_the_reader_passes_unchanged(sealed: Path) -> None:
    for opened in (open_sealed, open_guarded):
        with pytest.raises(FileNotFoundError, match="the reader's own"), opened(sealed):
            raise FileNotFoundError("the reader's own")
    sealed.unlink()
