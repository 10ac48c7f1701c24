from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.hdf5 import FileRefused, blocks, open_guarded, stored_rows

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "rows": {"chunks": (7, 3, 4, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "pieces": {"chunks": (7, 1, 4, 2), "compression": "gzip"},
    "one": {"chunks": (50, 3, 4, 4), "compression": "gzip"},
}


def written(path: Path, array: np.ndarray, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("inputs", data=array, **layout)
    return path


def opened(path: Path) -> Any:
    stack = ExitStack()
    return stored_rows(stack.enter_context(open_guarded(path)), "inputs", stack)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "index", [[], [0], [49, 0, 7, 6], [3, 3, 3], [*range(50)], [*reversed(range(50))], slice(0, 0), slice(5, 23)]
)
def test_rows_are_those_of_the_array_in_any_order(layout: dict[str, Any], index: Any, tmp_path: Path) -> None:
    rows = opened(written(tmp_path / "a.h5", PIXELS, **layout))
    index = index if isinstance(index, slice) else np.array(index, dtype=np.int64)
    found = np.empty_like(PIXELS[index])
    rows.read(index, found)
    assert np.array_equal(found, PIXELS[index])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_blocks_are_all_rows_in_their_order(
    layout: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.hdf5.rows._BLOCK_BYTES", 700)
    rows = opened(written(tmp_path / "a.h5", PIXELS, **layout))
    found = [*blocks(rows)]
    assert len(found) > 1 or layout is LAYOUTS["one"]
    assert np.array_equal(np.concatenate(found), PIXELS)
    assert next(blocks(PIXELS)) is PIXELS


def test_every_chunk_of_a_batch_is_decoded_once(tmp_path: Path) -> None:
    rows = opened(written(tmp_path / "a.h5", PIXELS, **LAYOUTS["rows"]))
    reads: list[tuple[int, int]] = []
    between = rows._between
    rows._between = lambda begin, end: reads.append((begin, end)) or between(begin, end)
    index = RNG.permutation(50)[:20]
    rows.read(index, np.empty_like(PIXELS[index]))
    chunks = [begin // 7 for begin, _ in reads]
    assert chunks == sorted(set((index // 7).tolist()))
    assert all(begin // 7 == (end - 1) // 7 for begin, end in reads)


def test_numbers_are_converted_as_numpy_does_it(tmp_path: Path) -> None:
    floats = RNG.standard_normal((9, 5)).astype(">f8")
    rows = opened(written(tmp_path / "a.h5", floats))
    assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == ((9, 5), np.dtype("=f8"), 9, 360)
    found = np.empty((9, 5), np.float32)
    rows.read(np.arange(9), found)
    assert np.array_equal(found, floats.astype(np.float32))


def test_the_file_is_closed_with_the_last_array(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", PIXELS)
    rows = opened(path)
    with pytest.raises(OSError, match=r"unable|already"):
        h5py.File(path, "r+")
    del rows
    h5py.File(path, "r+").close()


def test_a_damaged_chunk_is_refused_by_its_place(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", PIXELS, **LAYOUTS["rows"])
    with h5py.File(path) as file:
        chunk = file["inputs"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    rows = opened(path)
    rows.read(np.array([0, 13]), np.empty((2, 3, 4, 4), np.uint8))
    with pytest.raises(FileRefused, match=r"a\.h5 has unreadable rows 15 to 15 of /inputs.*Fetch or write it again"):
        rows.read(np.array([0, 15]), np.empty((2, 3, 4, 4), np.uint8))


def test_a_scalar_and_a_text_have_no_rows(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"of shape \(\)"):
        opened(written(tmp_path / "a.h5", np.array(3)))
    with pytest.raises(FileRefused, match="numbers"):
        opened(written(tmp_path / "b.h5", np.array([b"x"], dtype=object), dtype=h5py.string_dtype()))
