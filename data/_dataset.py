"""Data sets as networks see them, and the HDF5 files they come from (layout: data/_stored.py)."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from data._stored import SPLIT_NAMES, Moments, Stored, StoredSplit, check, digest, read_inputs
from data.hdf5 import (
    StoredRows,
    open_guarded,
    read_array,
    read_attribute,
    refusal,
    stored_rows,
    write_array,
    write_sealed,
)

_REQUIRED = ("classes", "source", "licence")  # of files that espalier writes; users may leave them out
_OPTIONAL = ("mean", "std")


@dataclass(frozen=True, eq=False)
class Split:
    """One split: inputs (n, ...) and targets (n,) int64 in [0, num_classes).

    Inputs are float32 and finite, or int32 or int64, as a network takes them; or uint8 pixels, not yet normalised. They
    lie in memory, or stay in the file: then floats become float32 as they are read.
    """

    inputs: npt.NDArray[Any] | StoredRows
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, its inputs in memory or in its file.

    `splits` has "train", and "validation" and "test" where the file has them.
    """

    name: str
    num_classes: int
    splits: dict[str, Split]
    source: str
    licence: str
    sha256: str  # identity: of the numbers, not of the file
    input_shape: tuple[int, ...]  # of one example
    moments: Moments | None  # what pixels are to be normalised with; None: inputs are taken as they are


def read_dataset(path: Path, *, streamed: bool = False) -> Dataset:
    """Read and check a whole data set, written by espalier or by a user.

    A user's file needs train/inputs and train/targets only; what else it may hold and the defaults are in
    data/_stored.py.

    Args:
        path: an HDF5 file; its stem becomes the name.
        streamed: leave the inputs in the file, which stays open as long as a split is there. They are checked all the
            same, some at a time.

    Raises:
        FileRefused: the file or anything in it is not as it should be.

    Cost: the file is read twice when it is sealed; memory for the stored arrays, and for float32 inputs where they
        were other floats. Streamed: memory for the targets; floats are read three times.
    """
    with ExitStack() as opened:
        file = opened.enter_context(open_guarded(path))
        keeping = ExitStack() if streamed else None
        stored = _read_stored(path, file, keeping)
        stated = _stated_sha256(path, file)
        if keeping is None:
            opened.close()
        sha256 = digest(stored)
        if stated not in (None, sha256):
            wrong = f"holds arrays with digest {sha256}"
            raise refusal(path, wrong, f"its attribute sha256: {stated}", "Fetch it again, or delete the attribute.")
        splits = {
            name: Split(read_inputs(path, name, stored), split.targets.astype(np.int64))
            for name, split in stored.splits.items()
        }
        if keeping is not None:
            keeping.push(opened.pop_all())
    shape = splits["train"].inputs.shape[1:]
    return Dataset(path.stem, stored.num_classes, splits, stored.source, stored.licence, sha256, shape, stored.moments)


def inputs_bytes(path: Path) -> int:
    """Return how much memory reading a data set takes at its peak for its inputs: stored, and as float32 beside it.

    Raises:
        FileRefused: the file cannot be opened. What it holds is not checked: read_dataset says what is wrong with it.
    """
    with open_guarded(path, check_seal=False) as file:
        groups = [file[name] for name in SPLIT_NAMES if isinstance(file.get(name), h5py.Group)]
        stored = [node for node in (group.get("inputs") for group in groups) if isinstance(node, h5py.Dataset)]
        converted = {"float16": 4, "float64": 4}
        return sum(int(node.size or 0) * (node.dtype.itemsize + converted.get(node.dtype.name, 0)) for node in stored)


def write_dataset(path: Path, splits: Mapping[str, StoredSplit], attributes: Mapping[str, Any]) -> None:
    """Check a data set and write it as one sealed file, atomically; its sha256 is added.

    Args:
        path: final name; its folder must exist.
        splits: at least "train"; as stored, so uint8 pixels are not normalised. A pair (inputs, targets) will do.
        attributes: classes, source, licence; for uint8 inputs also mean and std. For float inputs mean and std are
            a record of what has been done already.

    Raises:
        FileRefused: the content would be refused on reading, or an attribute is missing.
        OSError: the file cannot be written.
    """
    stored = check(path, {name: StoredSplit(*split) for name, split in splits.items()}, attributes)
    required = _REQUIRED + _OPTIONAL * (stored.splits["train"].inputs.dtype == np.uint8)
    if missing := [key for key in required if key not in attributes]:
        raise refusal(path, f"would have no attribute {missing[0]!r}", ", ".join(required))
    for name in stored.splits:
        read_inputs(path, name, stored)

    def build(file: h5py.File) -> None:
        for key in sorted(attributes):
            file.attrs[key] = attributes[key]
        file.attrs["sha256"] = digest(stored)
        for name, split in stored.splits.items():
            group = file.create_group(name)
            write_array(group, "inputs", np.asarray(splits[name][0]))
            write_array(group, "targets", split.targets)

    write_sealed(path, build)


def dataset_sha256(path: Path) -> str:
    """Return the identity of a data set: its attribute sha256, else the digest of its arrays.

    The attribute is believed here, because planning a study must not read gigabytes; `read_dataset` verifies it
    before the numbers are used.

    Raises:
        FileRefused: not a data set.
    """
    with open_guarded(path, check_seal=False) as file:
        stated = _stated_sha256(path, file)
        return stated if stated is not None else digest(_read_stored(path, file))


def _read_stored(path: Path, file: h5py.File, keeping: ExitStack | None = None) -> Stored:
    """Read and check everything; `keeping`: all but the inputs, which keep it."""
    splits = {}
    for name, node in file.items():
        # A group that looks like a split under another name ("val", "Train") is a slip, not something to skip.
        if name in SPLIT_NAMES or (isinstance(node, h5py.Group) and {"inputs", "targets"} & set(node)):
            if not isinstance(node, h5py.Group):
                raise refusal(path, f"has a data set {name!r}", f"a group with {name}/inputs and {name}/targets")
            inputs = read_array(node, "inputs") if keeping is None else stored_rows(node, "inputs", keeping)
            splits[name] = StoredSplit(inputs, read_array(node, "targets"))
    stated = {key: read_attribute(file, key) for key in _REQUIRED + _OPTIONAL}
    return check(path, splits, {key: value for key, value in stated.items() if value is not None})


def _stated_sha256(path: Path, file: h5py.File) -> str | None:
    value = read_attribute(file, "sha256")
    if value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        return value
    raise refusal(path, f"has sha256 = {value}", "64 hexadecimal digits", "Delete the attribute, or write it again.")
