"""The one door from the suite to the data room: which data set, where it lies, its splits in memory or in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

import data
from data._dataset import Dataset, read_dataset
from data.hdf5 import FileRefused, StoredRows, blocks
from suite.errors import UserError
from suite.host_memory import available_bytes
from suite.splits import Examples, Normalisation, Split
from suite.streaming import StreamedSplit
from suite.strict import Settings, validated

# As much of a whole GPU counts as kept in memory where batch sizes are chosen, see suite.networks.loaded.
MOST_OF_FREE_MEMORY = 0.4


class DataSpec(Settings):
    """Identity of a data set in a cell's key: its name and the digest of its arrays, not its place."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Located:
    """A data set on this machine."""

    spec: DataSpec
    path: Path
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype  # as a network takes them
    num_classes: int
    num_train: int
    num_validation: int
    num_test: int
    is_pixels: bool  # as they are stored
    missing: str = ""  # how the file comes to be, where there is none yet


def locate(name_or_path: str, options: Mapping[str, Any] | None = None) -> Located:
    """Find a data set by its name, writing an embedded or generated one on first use, or by the path of an HDF5 file.

    Args:
        name_or_path: a file in data/, or a path.
        options: of a generated data set.

    Raises:
        UserError: unknown name, or options that it does not have. FileRefused: the file is damaged or has another
            layout.
    """
    chosen = _checked_options(name_or_path, options or {})
    path = Path(name_or_path) if is_path(name_or_path) else data.ensure(name_or_path, chosen)
    dataset = read_dataset(path, streamed=True)  # planning looks at one example
    _check_splits(dataset.splits, path)
    spec = DataSpec(name=path.stem, sha256=dataset.sha256)
    train = _splits_on(dataset, "cpu")["train"]
    input_dtype = train.part(slice(1)).network_inputs().dtype
    return Located(
        spec,
        path,
        dataset.input_shape,
        input_dtype,
        dataset.num_classes,
        num_train=len(train.targets),
        num_validation=len(dataset.splits["validation"]),
        num_test=len(dataset.splits["test"]),
        is_pixels=dataset.moments is not None,
    )


def located_or_expected(name_or_path: str, options: Mapping[str, Any] | None = None) -> Located:
    """Find a data set, writing nothing: where its file is missing, what it will hold.

    A digest of zeros stands for one that is not known before the data set is prepared: cells have other keys then.

    Args, Raises: those of locate.
    """
    chosen = _checked_options(name_or_path, options or {})
    if is_path(name_or_path) or data.dataset_path(name_or_path, chosen).exists():
        return locate(name_or_path, options)
    found, path = data.expected(name_or_path, chosen), data.dataset_path(name_or_path, chosen)
    is_pixels = found.dtype == "uint8"
    takes_floats = is_pixels or found.dtype.startswith("float")
    return Located(
        DataSpec(name=path.stem, sha256=found.sha256 or "0" * 64),
        path,
        found.input_shape,
        torch.float32 if takes_floats else getattr(torch, found.dtype),
        found.num_classes,
        num_train=found.num_examples["train"],
        num_validation=found.num_examples["validation"],
        num_test=found.num_examples["test"],
        is_pixels=is_pixels,
        missing=found.command or "written on first use",
    )


def stand_in(name_or_path: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the data_options of a synthetic data set that looks to a network as a data set does.

    Nothing is written, and a data set by its name need not be there.

    Raises:
        UserError: unknown name, or options that it does not have. FileRefused: a file that cannot be read.

    Cost: a file is read once or twice, and not held.
    """
    chosen = _checked_options(name_or_path, options or {})
    if chosen is not None:
        kept = ("input_shape", "num_classes", "kind", "num_tokens")
        values = chosen.model_dump(mode="json", exclude_none=True)
        return {name: values[name] for name in kept if name in values}
    if not is_path(name_or_path):
        known = data.describe(name_or_path)
        return {"input_shape": list(known.input_shape), "num_classes": known.num_classes}
    dataset = read_dataset(Path(name_or_path), streamed=True)
    form: dict[str, Any] = {"input_shape": list(dataset.input_shape), "num_classes": dataset.num_classes}
    inputs = dataset.splits["train"].inputs
    if inputs.dtype.kind == "i":
        return form | {"kind": "tokens", "num_tokens": max(2, *(int(rows.max()) + 1 for rows in blocks(inputs)))}
    return form | {"kind": "floats" if dataset.moments is None else "pixels"}


def published_num_train(name_or_path: str) -> int | None:
    """Return how many training examples a data set has as it is published; None for those without an archive."""
    if is_path(name_or_path) or data.describe(name_or_path).archive is None:
        return None
    return data.expected(name_or_path).num_examples["train"]


def is_path(name_or_path: str) -> bool:
    """Return whether a task's data is a file of the user's own, not a data set by its name."""
    return name_or_path.endswith((".h5", ".hdf5")) or "/" in name_or_path


def _checked_options(name_or_path: str, options: Mapping[str, Any]) -> BaseModel | None:
    """Return a data set's checked options, None for one that has none.

    Raises:
        UserError: no such data set, no such option, or a value that breaks a rule.
    """
    listed = ", ".join(options)
    if is_path(name_or_path):
        if options:
            raise UserError(f"data_options ({listed}) beside data = {name_or_path!r}: a file has none. Leave them out.")
        return None
    try:
        model = data.options_model(name_or_path)
    except data.UnknownDataset as error:
        raise UserError(f"{error} Or give the path of an .h5 file.") from None
    if model is not None:
        return validated(model, options, f"data_options of {name_or_path}")
    if options:
        raise UserError(f"data_options ({listed}) beside data = {name_or_path!r}: it has none. Leave them out.")
    return None


def stored_splits(path: Path, device: str, *, stream: bool | None = None) -> dict[str, Examples]:
    """Return every split of an HDF5 file, whatever it holds.

    Args:
        path: the file.
        device: where targets lie, and inputs are handed out.
        stream: whether inputs stay in the file; None: where they do not fit, see fits. The same numbers either way.

    Raises:
        FileRefused: the file is missing or damaged, or has another layout.
    """
    return _splits_on(_read(path, device, stream), device)


def verified_splits(
    path: Path, sha256: str, device: str, *, stream: bool | None = None, processes: int = 1
) -> dict[str, Examples]:
    """Return every split of a data set whose digest went into a cell's key; the rest as in stored_splits.

    processes: as in training_splits.

    Raises:
        FileRefused: other numbers lie at the path now; a result from them would stand under the wrong key.
    """
    dataset = _read(path, device, stream, processes)
    if dataset.sha256 != sha256:
        raise FileRefused(f"{path} has changed since the study was planned. Run the study again to plan anew.")
    return _splits_on(dataset, device)


def training_splits(
    path: Path, sha256: str, device: str, *, stream: bool | None = None, processes: int = 1
) -> dict[str, Examples]:
    """Return the splits of a data set that training needs: train, validation and test; the rest as in verified_splits.

    processes: on this machine that hold the same data set at the same time, this one included.

    Raises:
        UserError: one is missing.
    """
    splits = verified_splits(path, sha256, device, stream=stream, processes=processes)
    _check_splits(splits, path)
    return splits


def fits(num_bytes: int, device: str, processes: int = 1) -> bool:
    """Return whether the inputs of a data set are kept in memory: whether they take a part of what is free only.

    The rest is for the network and for other cells. What is bound for a GPU passes through host memory as a whole.

    processes: of one cell on this machine, each with its own copy and, where there are GPUs, a GPU of its own: all of
        them ask before any has read. Other cells are not counted. Two that begin at the same moment find the same
        memory free and take 80 % of it at most; more of them at a time, such as on one GPU with more than twice as many
        workers as GPUs, may take more than there is where a data set is that large: then use fewer workers.
    """
    room = available_bytes() // processes
    if device == "cuda":
        room = min(room, torch.cuda.mem_get_info()[0])
    return num_bytes <= MOST_OF_FREE_MEMORY * room


def _read(path: Path, device: str, stream: bool | None, processes: int = 1) -> Dataset:
    streamed = not fits(data.inputs_bytes(path), device, processes) if stream is None else stream
    return read_dataset(path, streamed=streamed)


def _splits_on(dataset: Dataset, device: str) -> dict[str, Examples]:
    normalisation = None if dataset.moments is None else Normalisation(*dataset.moments)
    splits: dict[str, Examples] = {}
    for name, split in dataset.splits.items():
        targets = torch.from_numpy(split.targets).to(device)
        if isinstance(split.inputs, StoredRows):
            splits[name] = StreamedSplit(split.inputs, targets, normalisation)
        else:
            splits[name] = Split(torch.from_numpy(split.inputs).to(device), targets, normalisation)
    return splits


def _check_splits(splits: Mapping[str, object], path: Path) -> None:
    for name in ("train", "validation", "test"):
        if name not in splits:
            raise UserError(
                f"{path} has no split '{name}'. Expected: train, validation and test, each with inputs and targets."
            )
