"""What is published of a data set, and what an archive turns out to hold, found before anything is decoded."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 16 << 20  # of decoded images: small enough to lose little with a kill, large enough to be few files
TIMES_OFFICIAL = 10  # so many times the official number of examples is the most that is read of any archive


class Part(NamedTuple):
    """A run of examples of one official split, decoded and saved together."""

    split: str  # train or test
    first: int  # place of its first example in its split, in the official order
    size: int


@dataclass(frozen=True, eq=False)
class Block:
    """A part, decoded: images (size, channels, height, width) uint8, targets (size,) int64."""

    part: Part
    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    `read` takes the parts that are wanted and yields them, decoded, in whatever order the archive has them; it raises
    FileRefused where one turns out damaged. `decoder` names what its pixels depend on beside the archive, or nothing.
    """

    parts: tuple[Part, ...]
    class_names: tuple[str, ...]  # empty: none are published with the data
    read: Callable[[Collection[Part]], Iterator[Block]]
    decoder: str = ""

    def num_examples(self, split: str) -> int:
        """Return how many examples a split has."""
        return sum(part.size for part in self.parts if part.split == split)


@dataclass(frozen=True)
class Official:
    """What is published of one data set. The first file name stands for all in messages."""

    md5: Mapping[str, str]  # of each file that is needed, by its name
    url: str  # where the files are published
    survey: Callable[[Mapping[str, Path], "Official"], Contents]
    image_shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_examples: Mapping[str, int]  # of train, which the validation split is cut from, and of test
    num_validation: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    with_pickles: Mapping[str, str]  # md5 of published archives that hold the same as pickles, by their name

    def most(self, split: str) -> int:
        """Return how many examples of a split are read of an archive that is not the official one."""
        return TIMES_OFFICIAL * self.num_examples[split]

    def example(self) -> str:
        """Return what follows --from where nobody named anything."""
        return next(iter(self.md5)) if len(self.md5) == 1 else "FOLDER"


def parts(split: str, first: int, count: int, image_shape: tuple[int, ...]) -> Iterator[Part]:
    """Yield a run of examples in parts that are small enough to be held in memory."""
    step = max(1, BLOCK_BYTES // int(np.prod(image_shape)))
    for start in range(0, count, step):
        yield Part(split, first + start, min(step, count - start))
