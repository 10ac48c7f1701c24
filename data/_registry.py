"""Which data sets there are, and where their files lie: a data set is a file in this folder, found by its name."""

import difflib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from data._dataset import write_dataset
from data._stored import StoredSplit
from data.hdf5 import FileRefused, open_sealed, sweep


class UnknownDataset(ValueError):
    """No file of that name in data/; the message names the nearest one and all known ones."""


class DatasetModule(Protocol):
    """What a file in data/ defines to be a data set."""

    DESCRIPTION: str  # one line
    LICENCE: str
    SOURCE: str  # who made it and where it is published

    def build(self) -> tuple[dict[str, StoredSplit], Mapping[str, Any]]:
        """Return splits and attributes for `write_dataset`; the same numbers on every machine."""


@dataclass(frozen=True)
class DatasetDescription:
    """What can be said about a data set before its file exists."""

    name: str
    description: str
    licence: str
    source: str


def available() -> list[str]:
    """Return the names of the data sets: the files of data/ without a leading underscore, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))


def describe(name: str) -> DatasetDescription:
    """Return a data set's description, licence and source.

    Raises:
        UnknownDataset: no such data set.
    """
    module = _module(name)
    return DatasetDescription(name, module.DESCRIPTION, module.LICENCE, module.SOURCE)


def dataset_path(name: str) -> Path:
    """Return where a data set's file lies or will lie: $ESPALIER_DATA/NAME.h5.

    Without ESPALIER_DATA the folder is espalier/data in $XDG_CACHE_HOME, else in ~/.cache. On a cluster it must be
    one that every node sees.

    Raises:
        UnknownDataset: no such data set.
    """
    _require_known(name)
    return _folder() / f"{name}.h5"


def ensure(name: str) -> Path:
    """Return the path of a data set's file, written first if it is missing.

    Safe when several processes call it at once: each builds the same bytes, and each commit is atomic.

    Raises:
        UnknownDataset: no such data set.
        FileRefused: a file is there and damaged. It is not replaced in silence: whoever used it should know.
        OSError: the file cannot be written.

    Cost: the file is read once to verify its seal.
    """
    path = dataset_path(name)
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        splits, attributes = _module(name).build()
        write_dataset(path, splits, attributes)
    try:
        with open_sealed(path):
            return path
    except FileRefused as error:
        raise FileRefused(f"{error} Delete {path}: the next use of data set {name!r} writes it again.") from error


def _folder() -> Path:
    if folder := os.environ.get("ESPALIER_DATA"):
        return Path(folder).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says that a relative path is to be ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "espalier" / "data"


def _require_known(name: str) -> None:
    known = available()
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    listed = ", ".join(known)
    raise UnknownDataset(f"No data set named {name!r}.{guess} Known: {listed}. (A data set is a file in data/.)")


def _module(name: str) -> DatasetModule:
    _require_known(name)
    return cast(DatasetModule, importlib.import_module(f"data.{name}"))
