"""Synthetic: any shape, any number of classes, any number of examples, and learnable; every number from a seed.

A class is a template, smooth along the last two axes where there are more than one and along the only one else, and an
example is its class's template plus independent noise. So a linear layer can learn it as well as a convolution. Kinds:
"pixels" (uint8, the default of three axes, such as (3, 32, 32)), "floats" (float32, the default otherwise) and
"tokens" (int64 below num_tokens, where noise replaces tokens instead of adding to them).

Example i is of class i mod num_classes: a split of fewer examples than classes lacks the last ones.
The same numbers on every machine and with every version of numpy: bits of Philox, whose stream is fixed, whole-number
arithmetic, and floats that are whole numbers over 64.
"""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data._stored import SPLIT_NAMES, StoredSplit

DESCRIPTION = "Generated examples of any shape and any number of classes, from a seed (see data_options)"
LICENCE = "none needed: random numbers"
SOURCE = "espalier, data/synthetic.py"
VERSION = 1  # raise when the same options give other numbers: it is part of the file's name

Kind = Literal["pixels", "floats", "tokens"]
Numbers = npt.NDArray[np.int64]

MAX_NUMBERS = 1 << 28  # in all splits together: a quarter of a GiB of pixels, one GiB of floats
_MAX_CLASSES = 1_000_000  # as many as a data set may have
_MIDDLE, _AMPLITUDE = 128, 80  # of pixels
_FLOAT_UNIT = 64
_GRID = 4  # nodes of a smooth template along an axis: features of a quarter of an image
_LONG_GRID = 64  # where there is one axis alone
_CANDIDATES = 8  # templates drawn for each class, of which the one farthest from all others is taken
_FEW_DIMENSIONS, _FEW_CLASSES = 256, 1000  # beyond the first, independent templates are far apart anyway
_BLOCK_NUMBERS = 1 << 22


class Options(BaseModel):
    """What is generated. noise: half its range, in pixel levels; of tokens the share of 256 that is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(3, 32, 32), min_length=1, max_length=8)
    num_classes: Annotated[int, Field(ge=2, le=_MAX_CLASSES)] = 10
    num_train: Annotated[int, Field(ge=1)] = 2000
    num_validation: Annotated[int, Field(ge=1)] = 500
    num_test: Annotated[int, Field(ge=1)] = 500
    kind: Kind | None = None
    num_tokens: Annotated[int, Field(ge=2, le=2**31)] = 256
    noise: Annotated[int, Field(ge=0, le=128)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        sizes = (self.num_train, self.num_validation, self.num_test, self.num_seen)
        numbers = sum(sizes) * math.prod(self.input_shape)
        if numbers > MAX_NUMBERS:
            raise ValueError(
                f"input_shape = {list(self.input_shape)} with {sum(sizes[:3])} examples of {self.num_seen} classes "
                f"makes {numbers} numbers; at most {MAX_NUMBERS} are generated"
            )
        return self

    @property
    def num_seen(self) -> int:
        """Return how many classes there is an example of: the first ones."""
        return min(self.num_classes, max(self.num_train, self.num_validation, self.num_test))

    @property
    def chosen_kind(self) -> Kind:
        """Return the kind, also where it is left to the shape."""
        return self.kind or ("pixels" if len(self.input_shape) == 3 else "floats")


def build(options: Options) -> tuple[dict[str, StoredSplit], dict[str, Any]]:
    """Return the splits, inputs (n, *input_shape) and targets (n,) int64, and the file's attributes."""
    templates = _templates(options)
    sizes = (options.num_train, options.num_validation, options.num_test)
    splits = {
        name: _split(options, templates, size, purpose)
        for purpose, (name, size) in enumerate(zip(SPLIT_NAMES, sizes, strict=True), start=1)
    }
    attributes: dict[str, Any] = {"classes": options.num_classes, "source": SOURCE, "licence": LICENCE}
    if options.chosen_kind == "pixels":
        mean, std = _moments(np.asarray(splits["train"].inputs))
        attributes |= {"mean": mean, "std": std}
    return splits, attributes


def _bits(options: Options, purpose: int) -> np.random.Philox:
    """Return the stream of one purpose: 0 for the templates, then the splits."""
    return np.random.Philox(key=options.seed, counter=[0, 0, 0, purpose])


def _bytes(stream: np.random.Philox, count: int) -> Numbers:
    """Return the next whole numbers in [0, 256), (count,)."""
    words = np.atleast_1d(stream.random_raw(-(-count // 8))).astype("<u8")
    return words.view(np.uint8)[:count].astype(np.int64)


def _templates(options: Options) -> Numbers:
    """Return a template for each class that is seen, (num_seen, *input_shape), around _MIDDLE; or its tokens."""
    shape, stream = options.input_shape, _bits(options, 0)
    if options.chosen_kind == "tokens":
        words = stream.random_raw(options.num_seen * math.prod(shape)) % np.uint64(options.num_tokens)
        return words.astype(np.int64).reshape(options.num_seen, *shape)
    smooth = {len(shape) - 1: _LONG_GRID} if len(shape) == 1 else dict.fromkeys((len(shape) - 2, len(shape) - 1), _GRID)
    coarse = tuple(min(length, smooth.get(axis, length)) for axis, length in enumerate(shape))
    fields = _far_apart(stream, options.num_seen, math.prod(coarse)).reshape(options.num_seen, *coarse)
    for axis in smooth:
        fields = _interpolated(fields, axis + 1, shape[axis])
    return _MIDDLE + fields


def _far_apart(stream: np.random.Philox, count: int, dim: int) -> Numbers:
    """Return points of [-_AMPLITUDE, _AMPLITUDE]^dim one after the other, each the best of a few, (count, dim).

    In two dimensions independent points would now and then coincide, and two classes with them.
    """
    chosen = np.empty((count, dim), dtype=np.int64)
    for index in range(count):
        num = _CANDIDATES if dim <= _FEW_DIMENSIONS and index < _FEW_CLASSES else 1
        candidates = _bytes(stream, num * dim).reshape(num, dim) * (2 * _AMPLITUDE) // 255 - _AMPLITUDE
        nearest = [int(((chosen[:index] - each) ** 2).sum(axis=1).min(initial=1 << 60)) for each in candidates]
        chosen[index] = candidates[nearest.index(max(nearest))]
    return chosen


def _interpolated(values: Numbers, axis: int, length: int) -> Numbers:
    """Return values at `length` places along an axis, linear between the nodes and rounded down."""
    num_nodes = values.shape[axis]
    places = np.arange(length) * (num_nodes - 1)
    node, part = np.divmod(places, max(1, length - 1))
    after = np.minimum(node + 1, num_nodes - 1)
    weight = part.reshape(-1, *(1,) * (values.ndim - axis - 1))
    whole = max(1, length - 1)
    between: Numbers = values.take(node, axis) * (whole - weight) + values.take(after, axis) * weight
    return between // whole


def _split(options: Options, templates: Numbers, size: int, purpose: int) -> StoredSplit:
    targets = np.arange(size, dtype=np.int64) % options.num_classes
    dtype = {"pixels": np.uint8, "floats": np.float32, "tokens": np.int64}[options.chosen_kind]
    inputs: npt.NDArray[Any] = np.empty((size, *options.input_shape), dtype=dtype)
    stream = _bits(options, purpose)
    # A multiple of eight, so that every block but the last uses whole words: the numbers do not depend on its size.
    block = max(8, _BLOCK_NUMBERS // math.prod(options.input_shape) // 8 * 8)
    for begin in range(0, size, block):
        part = slice(begin, begin + block)
        inputs[part] = _noisy(options, templates[targets[part]], stream)
    return StoredSplit(inputs, targets)


def _noisy(options: Options, clean: Numbers, stream: np.random.Philox) -> npt.NDArray[Any]:
    noise = _bytes(stream, clean.size).reshape(clean.shape)
    if options.chosen_kind == "tokens":
        other = np.atleast_1d(stream.random_raw(clean.size)) % np.uint64(options.num_tokens)
        return np.where(noise < options.noise, other.astype(np.int64).reshape(clean.shape), clean)
    levels: Numbers = np.clip(clean + (2 * noise - 255) * options.noise // 255, 0, 255)
    return levels if options.chosen_kind == "pixels" else (levels - _MIDDLE) / _FLOAT_UNIT


def _moments(pixels: npt.NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of pixels in [0, 1], from exact sums."""
    counts = [np.bincount(pixels[:, channel].reshape(-1), minlength=256) for channel in range(pixels.shape[1])]
    num = pixels.size // pixels.shape[1]
    means, stds = [], []
    for count in counts:
        total, squares = (sum(int(n) * level**power for level, n in enumerate(count)) for power in (1, 2))
        means.append(total / num / 255)
        stds.append((math.sqrt(num * squares - total * total) / num / 255) or 1.0)  # one colour alone has no spread
    return means, stds
