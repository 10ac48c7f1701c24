"""IDX files of MNIST's kind: four .gz files, images and labels of train and test.

A header of big-endian numbers (magic number, one length per dimension), then one byte per pixel or label.
Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

import gzip
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.archives.bounded import Readable, damage_refused, exactly
from data.archives.official import Block, Contents, Official, Part, parts
from data.hdf5 import refusal

NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_UNSIGNED_BYTES = 8  # the only element type of these files
_PIECE_BYTES = 1 << 20


def survey(files: Mapping[str, Path], official: Official) -> Contents:
    """Read headers, labels and lengths of the four files; everything is decompressed once.

    Raises:
        FileRefused: damaged, cut off, longer than its header says, or images of another size.
    """
    labels: dict[str, npt.NDArray[np.int64]] = {}
    found: list[Part] = []
    for split, (images_name, labels_name) in NAMES.items():
        images_path = files[images_name]
        labels[split] = _labels(files[labels_name], official, split)
        _check_images(images_path, official, split, len(labels[split]))
        found += parts(split, 0, len(labels[split]), official.image_shape)

    def read(wanted: Collection[Part]) -> Iterator[Block]:
        for split, (images_name, _) in NAMES.items():
            path = files[images_name]
            with damage_refused(path), gzip.open(path) as stream:
                _header(path, stream, 3, official.most(split))
                for part in [part for part in found if part.split == split]:
                    shape = (part.size, *official.image_shape)
                    content = exactly(path, stream, int(np.prod(shape)))
                    if part in wanted:
                        images = np.frombuffer(content, np.uint8).reshape(shape)
                        yield Block(part, images, labels[split][part.first : part.first + part.size])

    return Contents(tuple(found), (), read)


def _labels(path: Path, official: Official, split: str) -> npt.NDArray[np.int64]:
    with damage_refused(path), gzip.open(path) as stream:
        (count,) = _header(path, stream, 1, official.most(split))
        labels = np.frombuffer(exactly(path, stream, count), np.uint8).astype(np.int64)
        _require_end(path, stream)
    if labels.max() >= official.num_classes:
        raise refusal(path, f"has class number {labels.max()}", f"0 to {official.num_classes - 1}", "Fetch it again.")
    return labels


def _check_images(path: Path, official: Official, split: str, num_labels: int) -> None:
    with damage_refused(path), gzip.open(path) as stream:
        count, height, width = _header(path, stream, 3, official.most(split))
        if (height, width) != official.image_shape[1:]:
            rule = f"{official.image_shape[1]} x {official.image_shape[2]} pixels"
            raise refusal(path, f"has images of {height} x {width} pixels", rule)
        if count != num_labels:
            raise refusal(path, f"has {count} images and {num_labels} labels", "as many labels as images")
        rest = count * height * width
        while rest:
            rest -= len(exactly(path, stream, min(rest, _PIECE_BYTES)))
        _require_end(path, stream)


def _header(path: Path, stream: Readable, num_dimensions: int, most: int) -> tuple[int, ...]:
    zero, kind, dimensions = struct.unpack(">HBB", exactly(path, stream, 4))
    if (zero, kind, dimensions) != (0, _UNSIGNED_BYTES, num_dimensions):
        wrong = f"begins with {(zero, kind, dimensions)}"
        raise refusal(path, wrong, f"the header of an IDX file, (0, {_UNSIGNED_BYTES}, {num_dimensions})")
    shape = struct.unpack(f">{num_dimensions}I", exactly(path, stream, 4 * num_dimensions))
    if not 1 <= shape[0] <= most:
        raise refusal(path, f"declares {shape[0]} examples", f"1 to {most}")
    return shape


def _require_end(path: Path, stream: Readable) -> None:
    if stream.read(1):  # at its end gzip compares its checksum too
        raise refusal(path, "is longer than its header says", "a file as its header says", "Fetch it again.")
