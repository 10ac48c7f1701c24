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
from data.archives import Official, Prepared, Tell
from data.archives import prepare as prepare_archive
from data.hdf5 import FileRefused, open_sealed, refusal, sweep


class UnknownDataset(ValueError):
    """No file of that name in data/; the message names the nearest one and all known ones."""


class DatasetModule(Protocol):
    """What a file in data/ defines to be a data set: these, and either `build` or ARCHIVE, an `Official`."""

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
    archive: Official | None  # None: its file is written on first use


def available() -> list[str]:
    """Return the names of the data sets: the files of data/ without a leading underscore, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))


def describe(name: str) -> DatasetDescription:
    """Return a data set's description, licence and source.

    Raises:
        UnknownDataset: no such data set.
    """
    module = _module(name)
    return DatasetDescription(name, module.DESCRIPTION, module.LICENCE, module.SOURCE, getattr(module, "ARCHIVE", None))


def prepare_command(name: str, official: Official) -> str:
    """Return the command that prepares a data set from its archive."""
    return f"espalier data prepare {name} --from {official.example()}"


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
    """Return the path of a data set's file, written first if it is missing and needs no archive.

    Safe when several processes call it at once: each builds the same bytes, and each commit is atomic.

    Raises:
        UnknownDataset: no such data set.
        FileRefused: a file is there and damaged. It is not replaced in silence: whoever used it should know. Or none
            is there, and the data set has to be prepared from its official archive.
        OSError: the file cannot be written.

    Cost: the file is read once to verify its seal.
    """
    path = dataset_path(name)
    official = describe(name).archive
    if not os.path.lexists(path):
        if official is not None:
            repair = (
                f"Fetch {' and '.join(official.md5)} from {official.url} and run: {prepare_command(name, official)}."
            )
            raise refusal(path, "does not exist", f"data set {name}, prepared from its official archive", repair)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        splits, attributes = _module(name).build()
        write_dataset(path, splits, attributes)
    try:
        with open_sealed(path):
            return path
    except FileRefused as error:
        again = f"the next use of data set {name!r} writes it again."
        if official is not None:
            again = f"{prepare_command(name, official)} writes it again."
        raise FileRefused(f"{error} Delete {path}: {again}") from error


def prepare(
    name: str,
    source: Path,
    out: Path | None = None,
    *,
    tell: Tell,
    allow_other: bool = False,
) -> Prepared:
    """Write a data set's file from its official archive; see `data.archives.prepare`.

    Args:
        name: of a data set that needs an archive.
        source: the archive, or the folder of its files.
        out: the file to write; None: where `ensure` looks for it.
        tell: takes the fraction done and a text.
        allow_other: take an archive with another checksum.

    Raises:
        UnknownDataset: no such data set, or it needs no archive.
        FileRefused: the archive cannot be used, or the file is there already.
        OSError: the file cannot be written.
    """
    described = describe(name)
    if described.archive is None:
        needing = ", ".join(each for each in available() if describe(each).archive)
        raise UnknownDataset(
            f"Data set {name!r} needs no archive: it is written on first use. Those that do: {needing}."
        )
    path = (out or dataset_path(name)).absolute()
    if os.path.lexists(path):
        raise refusal(path, "is there already", "a new file", "Delete it to prepare it anew, or give another --out.")
    facts = {"licence": described.licence, "source": described.source}
    return prepare_archive(name, described.archive, facts, source, path, allow_other=allow_other, tell=tell)


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
