import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.official_archives import folder_of, idx, idx_files

Refused = Callable[[str, Path], str]
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
PIXELS = np.zeros((30, 28, 28), np.uint8)
NUMBERS = np.arange(30, dtype=np.uint8) % 10


def header(*shape: int, magic: tuple[int, int] = (0, 8)) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", *magic, len(shape), *shape)


CASES: dict[str, tuple[str, bytes]] = {
    "has images of 32 x 32 pixels. Expected: 28 x 28 pixels.": (IMAGES, idx(np.zeros((30, 32, 32), np.uint8))),
    "has 29 images and 30 labels": (IMAGES, idx(PIXELS[:29])),
    "has class number 10. Expected: 0 to 9.": (LABELS, idx(NUMBERS + 1)),
    "has no training example of class 3": (LABELS, idx(np.where(NUMBERS == 3, 4, NUMBERS).astype(np.uint8))),
    "is cut off: it has fewer bytes than it declares": (
        IMAGES,
        gzip.compress(header(30, 28, 28) + PIXELS.tobytes()[:-1]),
    ),
    "is longer than its header says": (IMAGES, gzip.compress(header(30, 28, 28) + PIXELS.tobytes() + b"x")),
    "begins with (0, 13, 3)": (IMAGES, gzip.compress(header(30, 28, 28, magic=(0, 13)) + PIXELS.tobytes())),
    "begins with (0, 8, 1). Expected: the header of an IDX file, (0, 8, 3).": (IMAGES, idx(NUMBERS)),
    "begins with (0, 8, 3)": (LABELS, idx(PIXELS)),
    "declares 0 examples": (LABELS, gzip.compress(header(0))),
    "declares 4294967295 examples. Expected: 1 to 600000.": (LABELS, gzip.compress(header(2**32 - 1))),
    "is damaged or cut off": (IMAGES, idx(PIXELS)[:-9]),
    "is damaged or cut off: Not a gzipped file": (IMAGES, header(30, 28, 28) + PIXELS.tobytes()),
}


@pytest.mark.parametrize("message", CASES)
def test_what_is_not_in_the_format_is_refused(message: str, tmp_path: Path, refused: Refused) -> None:
    name, content = CASES[message]
    source = folder_of(tmp_path / "mnist", idx_files("mnist") | {name: content})
    line = refused("mnist", source)
    assert message in line
    assert name in line or "no training example" in line


@pytest.mark.parametrize(("name", "begin"), [(IMAGES, header(30, 28, 28)), (LABELS, header(30))])
def test_a_bomb_takes_no_memory(name: str, begin: bytes, tmp_path: Path, refused: Refused) -> None:
    source = folder_of(tmp_path / "mnist", idx_files("mnist"))
    with gzip.open(source / name, "wb", compresslevel=1) as packed:
        packed.write(begin)
        for _ in range(200):
            packed.write(bytes(1 << 20))
    tracemalloc.start()
    assert "is longer than its header says" in refused("mnist", source)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 << 20
