"""What a data set's file may hold, checked before anything is computed from it.

Layout: groups train, validation, test, each with `inputs` (n, ...) and `targets` (n,); root attributes classes, mean,
std, source, licence, sha256. Inputs are floats, or int32 or int64 such as token ids, taken as they are; or uint8
pixels, scaled to [0, 1] and normalised with mean and std, which are one number or one per channel (axis 1 of inputs).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.hdf5 import StoredRows, blocks, refusal

SPLIT_NAMES = ("train", "validation", "test")  # also the canonical order of the digest
_TAKEN_AS_THEY_ARE = ("float16", "float32", "float64", "int32", "int64")
_MAX_CLASSES = 1_000_000  # a guess that tells class numbers from row identifiers


class StoredSplit(NamedTuple):
    """One split as a file holds it: inputs (n, ...) of a dtype that is read, targets (n,) of any integer dtype."""

    inputs: npt.NDArray[Any] | StoredRows
    targets: npt.NDArray[Any]


class Moments(NamedTuple):
    """What pixels in [0, 1] are normalised with, (pixel - mean) / std: one number for all channels, or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """A whole file that passed its checks; mean and std only matter for uint8 inputs."""

    splits: dict[str, StoredSplit]
    num_classes: int
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    source: str
    licence: str

    @property
    def moments(self) -> Moments | None:
        """What uint8 inputs are to be normalised with; None for inputs that are taken as they are."""
        if self.splits["train"].inputs.dtype != np.uint8:
            return None
        return Moments(tuple(self.mean.reshape(-1).tolist()), tuple(self.std.reshape(-1).tolist()))


def check(path: Path, splits: Mapping[str, StoredSplit], attributes: Mapping[str, Any]) -> Stored:
    """Check a file's content and complete it with defaults.

    Missing attributes: classes is the largest training target + 1; mean is 0 and std is 1 (pixels in [0, 1]); source
    and licence are "not stated".

    Raises:
        FileRefused: splits missing, empty, or of different lengths, shapes or dtypes; inputs of a dtype that has no
            meaning here; targets that are not integers in [0, classes); attributes that do not fit.
    """
    if unknown := sorted(set(splits) - set(SPLIT_NAMES)):
        raise refusal(path, f"has a split named {unknown[0]!r}", "train, validation, test", "Rename the group.")
    if "train" not in splits:
        raise refusal(path, "has no group 'train'", "train/inputs and train/targets", "Put all examples there.")
    ordered = {name: splits[name] for name in SPLIT_NAMES if name in splits}
    for name, split in ordered.items():
        _check_inputs(path, name, split.inputs, like=ordered["train"].inputs)
        _check_targets(path, name, split)
    num_classes = _num_classes(path, attributes, ordered["train"].targets)
    for name, split in ordered.items():
        _check_classes(path, name, split.targets, num_classes)
    stored = Stored(
        splits=ordered,
        num_classes=num_classes,
        mean=_per_channel(path, attributes, "mean", 0.0, ordered["train"].inputs),
        std=_per_channel(path, attributes, "std", 1.0, ordered["train"].inputs),
        source=str(attributes.get("source", "not stated")),
        licence=str(attributes.get("licence", "not stated")),
    )
    _check_moments(path, stored.moments)
    return stored


def digest(stored: Stored) -> str:
    """Return the SHA-256 of everything that reaches a network: same numbers, same digest, however they are stored.

    Covered in this order: classes; mean and std when the inputs are uint8; per split the inputs in their stored
    dtype, little-endian and C-ordered, and the targets as int64. Source and licence are not covered.
    """
    sha256 = StreamedDigest(stored.num_classes)
    if stored.splits["train"].inputs.dtype == np.uint8:
        sha256.add("mean", stored.mean)
        sha256.add("std", stored.std)
    for name, split in stored.splits.items():
        sha256.add(f"{name}/inputs", split.inputs)
        sha256.add(f"{name}/targets", split.targets.astype(np.int64))
    return sha256.hexdigest()


class StreamedDigest:
    """The same digest of arrays that come one after another, in the order of `digest`, whole or row by row."""

    def __init__(self, num_classes: int) -> None:
        self._sha256 = hashlib.sha256(f"classes {num_classes}\n".encode())

    def add(self, name: str, array: npt.NDArray[Any] | StoredRows) -> None:
        """Add a whole array, some rows at a time where it lies in a file."""
        self.begin(name, array.dtype, array.shape)
        for rows in blocks(array):
            self.rows(rows)

    def begin(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Begin with an array whose rows are to follow."""
        self._sha256.update(f"{name} {dtype.newbyteorder('<').str} {shape}\n".encode())

    def rows(self, rows: npt.NDArray[Any]) -> None:
        """Add rows of the array that was begun."""
        canonical = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        self._sha256.update(canonical.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """Return the digest of all that was added."""
        return self._sha256.hexdigest()


def read_inputs(path: Path, split_name: str, stored: Stored) -> npt.NDArray[Any] | StoredRows:
    """Return a split's inputs as they stay in memory: floats as finite float32, pixels and whole numbers as stored.

    Those that stay in the file are returned as they are: they become float32 as they are read.

    Raises:
        FileRefused: an input is NaN or infinite, also after the conversion to float32.

    Cost: no copy of what is float32, int32, int64 or uint8 already. Floats in a file are read once.
    """
    inputs = stored.splits[split_name].inputs
    if inputs.dtype.kind != "f":
        return inputs
    num_lost, num_read = 0, 0
    first: tuple[int, ...] = ()
    for rows in blocks(inputs):
        with np.errstate(over="ignore"):  # what overflows is refused below
            floats = rows.astype(np.float32, copy=False)
        finite = np.isfinite(floats)
        if not num_lost and not finite.all():
            row, *rest = (int(index) for index in np.unravel_index(int(np.argmin(finite)), finite.shape))
            first = (num_read + row, *rest)
        num_lost, num_read = num_lost + finite.size - int(np.count_nonzero(finite)), num_read + len(rows)
    if num_lost:
        wrong = f"has {num_lost} values in {split_name}/inputs that are not finite"
        raise refusal(path, f"{wrong} in float32 (the first at {first})", "finite numbers", "Remove or impute them.")
    return inputs if isinstance(inputs, StoredRows) else floats


def _check_inputs(
    path: Path, name: str, inputs: npt.NDArray[Any] | StoredRows, like: npt.NDArray[Any] | StoredRows
) -> None:
    where = f"has {name}/inputs of"
    if inputs.dtype != np.uint8 and inputs.dtype.name not in _TAKEN_AS_THEY_ARE:
        rule = f"{', '.join(_TAKEN_AS_THEY_ARE)} (taken as they are) or uint8 (pixels)"
        raise refusal(path, f"{where} dtype {inputs.dtype}", rule, "Convert them.")
    if inputs.ndim < 2 or inputs.size == 0:
        raise refusal(
            path, f"{where} shape {inputs.shape}", "(examples, ...) with at least one example and one feature"
        )
    if inputs.shape[1:] != like.shape[1:] or inputs.dtype != like.dtype:
        wrong = f"{where} dtype {inputs.dtype} and example shape {inputs.shape[1:]}"
        raise refusal(path, wrong, f"as in train: {like.dtype} and {like.shape[1:]}")


def _check_targets(path: Path, name: str, split: StoredSplit) -> None:
    targets = split.targets
    where = f"has {name}/targets of"
    if targets.dtype.kind not in "iu":
        is_one_hot = targets.ndim == 2 and targets.shape[1] > 1
        repair = "Take argmax(axis=1) of one-hot rows." if is_one_hot else "Convert them to int64."
        shape = f" and shape {targets.shape}" * is_one_hot
        raise refusal(path, f"{where} dtype {targets.dtype}{shape}", "integer class numbers", repair)
    if targets.ndim != 1:
        raise refusal(
            path,
            f"{where} shape {targets.shape}",
            "one class number per example, shape (examples,)",
            "Flatten them, or take argmax(axis=1) of one-hot rows.",
        )
    if len(targets) != len(split.inputs):
        raise refusal(path, f"{where} length {len(targets)}", f"as many as {name}/inputs: {len(split.inputs)}")
    if targets.min() < 0:
        raise refusal(path, f"has a negative class number in {name}/targets: {targets.min()}", "0 to classes - 1")


def _num_classes(path: Path, attributes: Mapping[str, Any], train_targets: npt.NDArray[Any]) -> int:
    value = np.asarray(attributes.get("classes", int(train_targets.max()) + 1))
    if value.shape != () or value.dtype.kind not in "iu" or not 2 <= int(value) <= _MAX_CLASSES:
        stated = "classes" if "classes" in attributes else "largest training target + 1"
        rule = f"one integer from 2 to {_MAX_CLASSES}"
        raise refusal(path, f"has {stated} = {value}", rule, "Set the root attribute 'classes'.")
    return int(value)


def _check_classes(path: Path, name: str, targets: npt.NDArray[Any], num_classes: int) -> None:
    if targets.max() >= num_classes:
        wrong = f"has class number {targets.max()} in {name}/targets"
        repair = "Set the root attribute 'classes' when train lacks a class."
        raise refusal(path, wrong, f"0 to {num_classes - 1} for {num_classes} classes", repair)


def _per_channel(
    path: Path, attributes: Mapping[str, Any], key: str, default: float, inputs: npt.NDArray[Any] | StoredRows
) -> npt.NDArray[np.float64]:
    value = np.asarray(attributes.get(key, default))
    num_channels = inputs.shape[1]
    if value.dtype.kind not in "iuf" or value.shape not in ((), (1,), (num_channels,)):
        rule = f"one number, or one for each of the {num_channels} channels (axis 1)"
        raise refusal(path, f"has {key} of dtype {value.dtype}, shape {value.shape}", rule)
    numbers = value.astype(np.float64)
    if not np.isfinite(numbers).all() or (key == "std" and (numbers <= 0).any()):
        raise refusal(path, f"has {key} = {numbers.tolist()}", "finite numbers" + ", above 0" * (key == "std"))
    return numbers


def _check_moments(path: Path, moments: Moments | None) -> None:
    """Check that black and white, and so every pixel, are finite once they are normalised in float32."""
    if moments is None:
        return
    with np.errstate(all="ignore"):
        mean, std = (np.asarray(numbers, dtype=np.float32) for numbers in moments)
        normalised = (np.array([[0], [1]], dtype=np.float32) - mean) / std
    if not np.isfinite(normalised).all():
        wrong = f"has mean = {list(moments.mean)} and std = {list(moments.std)}"
        raise refusal(path, wrong, "numbers that keep normalised pixels finite in float32")
