from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.hdf5 import (
    FileRefused,
    open_guarded,
    read_array,
    read_attribute,
    read_text,
    read_texts,
    write_array,
    write_rows,
    write_text,
    write_texts,
)


@pytest.fixture
def file() -> Iterator[h5py.File]:
    with h5py.File.in_memory() as file:
        yield file


@pytest.mark.parametrize(
    "array",
    [
        np.arange(7),
        np.linspace(0, 1, 300_000, dtype=np.float32).reshape(3, 1000, 100),
        np.array([[True, False]]),
        np.ones((2, 3), complex),
        np.float64(0.25),
        np.array(3),
        np.zeros((0, 4)),
        np.array([np.nan, np.inf, -0.0]),
        np.arange(12.0).reshape(3, 4).T,
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_come_back_bit_for_bit(file: h5py.File, array: Any) -> None:
    write_array(file, "x", array)
    back = read_array(file, "x")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_storage_is_the_one_every_reader_understands(file: h5py.File) -> None:
    write_array(file, "x", np.zeros((1000, 1000)), unit="nats", direction="lower")
    dataset = file["x"]
    assert (dataset.compression, dataset.compression_opts, dataset.shuffle, dataset.fletcher32) == (
        "gzip",
        4,
        True,
        True,
    )
    assert dataset.chunks == (131, 1000)  # 1 MiB of whole rows
    assert dict(dataset.attrs) == {"unit": "nats", "direction": "lower"}
    write_array(file, "scalar", 1.0)
    assert file["scalar"].chunks is None


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((5,), (5,)), ((10**6,), (131072,)), ((4, 10**6), (1, 131072)), ((50, 3, 100, 100), (4, 3, 100, 100))],
)
def test_chunks_fill_one_mebibyte_from_the_last_axis(
    file: h5py.File, shape: tuple[int, ...], chunks: tuple[int, ...]
) -> None:
    write_array(file, "x", np.zeros(shape))
    assert file["x"].chunks == chunks


def test_big_endian_arrays_become_native(file: h5py.File) -> None:
    file["x"] = np.arange(5, dtype=">f4")
    assert read_array(file, "x").dtype.isnative
    assert read_array(file, "x").tolist() == [0, 1, 2, 3, 4]


def test_text_round_trip(file: h5py.File) -> None:
    write_text(file, "config", "λ = 0.5\nzweite Zeile")
    write_text(file, "empty", "")
    write_text(file, "long", "x" * 200_000)
    assert read_text(file, "config") == "λ = 0.5\nzweite Zeile"
    assert read_text(file, "empty") == ""
    assert len(read_text(file, "long")) == 200_000
    file["fixed"] = np.bytes_("ab")
    assert read_text(file, "fixed") == "ab"


def test_columns_of_text_round_trip(file: h5py.File) -> None:
    write_texts(file, "method", ["imp", "", "smart_ratio", "naïve"], unit="name")
    write_texts(file, "none", [])
    file["theirs"] = ["variable", "length"]
    assert read_texts(file, "method") == ["imp", "", "smart_ratio", "naïve"]
    assert read_texts(file, "none") == []
    assert read_texts(file, "theirs") == ["variable", "length"]
    assert file["method"].fletcher32


def test_what_is_not_numbers_or_has_a_nul_is_not_written(file: h5py.File) -> None:
    for wrong in (["a"], np.array([object()]), np.array(["2026-01-01"], "M8[D]")):
        with pytest.raises(TypeError, match="array 'x' has dtype"):
            write_array(file, "x", wrong)
    with pytest.raises(ValueError, match="NUL"):
        write_texts(file, "x", ["a\0"])
    with pytest.raises(ValueError, match="NULL"):
        write_text(file, "x", "a\0b")


def test_a_missing_data_set_names_those_present(file: h5py.File) -> None:
    write_array(file, "train/targets", [1])
    write_array(file, "train/extra", [1])
    for group, name in ((file["train"], "inputs"), (file, "train/inputs")):
        with pytest.raises(FileRefused, match=r"has no data set '.*inputs' in .* Present: extra, targets\."):
            read_array(group, name)
    with pytest.raises(FileRefused, match=r"Present: train\."):
        read_text(file, "train")
    with pytest.raises(FileRefused, match=r"Present: train\."):
        read_array(file, "validation/inputs")
    with pytest.raises(FileRefused, match=r"Present: nothing\."):
        read_array(file.create_group("test"), "inputs")


def test_a_long_list_is_cut(file: h5py.File) -> None:
    for index in range(30):
        file[f"x{index:02d}"] = index
    with pytest.raises(FileRefused, match=r"x19, \.\.\.\.$"):
        read_array(file, "y")


def test_kind_and_dimensions_are_checked(file: h5py.File) -> None:
    write_array(file, "x", np.ones((2, 3)))
    write_text(file, "text", "1.0")
    file["empty"] = h5py.Empty("f4")
    assert read_array(file, "x", dtype_kind="f", ndim=2).shape == (2, 3)
    with pytest.raises(FileRefused, match=r"dtype float64\. Expected: signed integer or unsigned integer"):
        read_array(file, "x", dtype_kind="iu")
    with pytest.raises(FileRefused, match=r"shape \(2, 3\)\. Expected: 1 dimensions"):
        read_array(file, "x", ndim=1)
    for name in ("text", "empty"):
        with pytest.raises(FileRefused, match="Expected: numbers"):
            read_array(file, name)
    for read in (read_text, read_texts):
        with pytest.raises(FileRefused, match="dtype float64"):
            read(file, "x")
    with pytest.raises(FileRefused, match="a column of texts"):
        read_texts(file, "text")


def test_text_that_is_not_utf8(file: h5py.File) -> None:
    file["x"] = np.bytes_(b"\xff\xfe")
    with pytest.raises(FileRefused, match="unreadable /x"):
        read_text(file, "x")


def test_a_flipped_bit_in_a_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "brought.h5"
    values = np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(10_000,), fletcher32=True)
    content = bytearray(path.read_bytes())
    content[content.index(values[:100].tobytes()) + 50] ^= 1
    path.write_bytes(content)
    with open_guarded(path) as file, pytest.raises(FileRefused, match="unreadable /x") as caught:
        read_array(file, "x")
    assert str(caught.value).startswith(str(path))


def test_attributes(file: h5py.File) -> None:
    file.attrs.update({"text": "é", "bytes": np.bytes_("ab"), "mean": 0.5, "stds": [1.0, 2.0], "big": np.int16(3)})
    file.attrs["reference"] = file.ref
    file.attrs["texts"] = ["a", "b"]
    file.attrs["not utf-8"] = np.bytes_(b"\xff")
    assert read_attribute(file, "missing") is None
    assert read_attribute(file, "text") == "é"
    assert read_attribute(file, "bytes") == "ab"
    for name, value in (("mean", 0.5), ("stds", [1.0, 2.0]), ("big", 3)):
        array = read_attribute(file, name)
        assert isinstance(array, np.ndarray)
        assert array.tolist() == value
    for name in ("reference", "texts", "not utf-8"):
        with pytest.raises(FileRefused, match=f"attribute '{name}'"):
            read_attribute(file, name)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[h5py.File]:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        yield file


ROWS = np.random.default_rng(0).integers(0, 256, (103, 3, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("block_rows", [1, 7, 10, 103, 200])
def test_rows_come_back_however_they_came(on_disk: h5py.File, block_rows: int) -> None:
    blocks = [ROWS[start : start + block_rows] for start in range(0, len(ROWS), block_rows)]
    write_rows(on_disk, "x", iter([*blocks, ROWS[:0]]), ROWS.shape, np.uint8, chunk_bytes=2000)
    dataset = on_disk["x"]
    assert np.array_equal(read_array(on_disk, "x"), ROWS)
    assert dataset.chunks == (10, 3, 8, 8)  # whole rows below 2000 bytes
    assert (dataset.compression, dataset.compression_opts) == ("gzip", 4)
    assert dataset.shuffle
    assert dataset.fletcher32
    stored = [dataset.id.get_chunk_info(number).size for number in range(dataset.id.get_num_chunks())]
    assert sum(stored) < 1.1 * ROWS.nbytes  # each chunk once


@pytest.mark.parametrize(("size", "message"), [(102, "got 103 rows. Expected: 102"), (104, "got 103 rows")])
def test_rows_that_are_too_few_or_too_many(on_disk: h5py.File, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_rows(on_disk, "x", [ROWS[:100], ROWS[100:]], (size, *ROWS.shape[1:]), np.uint8)


def test_floats_that_gzip_does_not_shrink_are_left_as_they_are(file: h5py.File) -> None:
    dense = np.random.default_rng(0).normal(size=(600, 1000)).astype(np.float32)
    kept = np.where(np.random.default_rng(1).random(dense.shape) < 0.2, dense, 0).astype(np.float32)
    few = dense[:100]
    for name, array in {"dense": dense, "kept": kept, "few": few}.items():
        write_array(file, name, array)
    assert {name: file[name].compression for name in file} == {"dense": None, "kept": "gzip", "few": "gzip"}
    assert all(file[name].fletcher32 for name in file)
    assert np.array_equal(read_array(file, "dense"), dense)
    assert np.array_equal(read_array(file, "kept"), kept)
    assert file["kept"].id.get_storage_size() < 0.4 * kept.nbytes
