"""Which data sets there are, and where their files lie: a data set is a file in this folder, found by its name."""

import difflib
import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from data._dataset import write_dataset
from data._stored import StoredSplit, check, digest
from data.archives import Official, Prepared, Tell
from data.archives import prepare as prepare_archive
from data.hdf5 import FileRefused, open_sealed, refusal, sweep


class UnknownDataset(ValueError):
    """No file of that name in data/; the message names the nearest one and all known ones."""


class DatasetModule(Protocol):
    """What a file in data/ defines to be a data set: these, and either `build` or ARCHIVE, an `Official`.

    One that is generated to order also defines `Options`, a frozen pydantic model whose fields all have defaults and
    which has input_shape and num_classes, and `VERSION`, raised when the same options give other numbers; its `build`
    takes the options, and its files are one for each set of them. Others with `build` define INPUT_SHAPE and
    NUM_CLASSES, so that all can be told before there is a file.
    """

    DESCRIPTION: str  # one line
    LICENCE: str
    SOURCE: str  # who made it and where it is published
    INPUT_SHAPE: tuple[int, ...]  # of one example
    NUM_CLASSES: int

    def build(self, *options: Any) -> tuple[dict[str, StoredSplit], Mapping[str, Any]]:
        """Return splits and attributes for `write_dataset`; the same numbers on every machine."""


@dataclass(frozen=True)
class Expectation:
    """What a data set's file will hold, known before it exists, so that a study can be planned without it.

    Attributes:
        input_shape: of one example.
        num_classes: class numbers are below it.
        num_examples: of each split.
        dtype: of the inputs as they are stored: "uint8" for pixels.
        sha256: of the numbers; None where they have to be prepared from an archive.
        command: that prepares them; empty where the file is written on first use.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    num_examples: Mapping[str, int]
    dtype: str
    sha256: str | None = None
    command: str = ""


@dataclass(frozen=True)
class DatasetDescription:
    """What can be said about a data set before its file exists; of a generated one, with some options.

    Attributes:
        name: the file in data/.
        description: one line.
        licence: of the numbers.
        source: who made it and where it is published.
        archive: what it is prepared from.
        input_shape: of one example.
        num_classes: class numbers are below it.
    """

    name: str
    description: str
    licence: str
    source: str
    archive: Official | None  # None: its file is written on first use
    input_shape: tuple[int, ...]
    num_classes: int


def available() -> list[str]:
    """Return the names of the data sets: the files of data/ without a leading underscore, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))


def options_model(name: str) -> type[BaseModel] | None:
    """Return the model of a generated data set's options, None for a data set that has none.

    Raises:
        UnknownDataset: no such data set.
    """
    return getattr(_module(name), "Options", None)


def prepare_command(name: str, official: Official) -> str:
    """Return the command that prepares a data set from its archive."""
    return f"espalier data prepare {name} --from {official.example()}"


def describe(name: str, options: BaseModel | None = None) -> DatasetDescription:
    """Return what can be said about a data set before its file exists.

    Args:
        name: the file in data/.
        options: of a generated data set, an instance of its options_model; None: the defaults.

    Raises:
        UnknownDataset: no such data set.
        TypeError: these are not its options.
    """
    module, archive = _module(name), getattr(_module(name), "ARCHIVE", None)
    shape, num_classes = _shape_and_classes(module, archive, _options(name, options))
    return DatasetDescription(
        name, module.DESCRIPTION, module.LICENCE, module.SOURCE, archive, tuple(shape), num_classes
    )


def dataset_path(name: str, options: BaseModel | None = None) -> Path:
    """Return where a data set's file lies or will lie: $ESPALIER_DATA/NAME.h5, or NAME-XXXXXXXX.h5 with its options.

    Without ESPALIER_DATA the folder is espalier/data in $XDG_CACHE_HOME, else in ~/.cache. On a cluster it must be
    one that every node sees.

    Args:
        name: the file in data/.
        options: see describe.

    Raises:
        UnknownDataset: no such data set.
        TypeError: these are not its options.
    """
    chosen = _options(name, options)
    suffix = "" if chosen is None else f"-{_digest(name, chosen)}"
    return _folder() / f"{name}{suffix}.h5"


def ensure(name: str, options: BaseModel | None = None) -> Path:
    """Return the path of a data set's file, written first if it is missing and needs no archive.

    Safe when several processes call it at once: each builds the same bytes, and each commit is atomic.

    Args:
        name: the file in data/.
        options: see describe.

    Raises:
        UnknownDataset: no such data set.
        TypeError: these are not its options.
        FileRefused: a file is there and damaged. It is not replaced in silence: whoever used it should know. Or none
            is there, and the data set has to be prepared from its official archive.
        OSError: the file cannot be written.

    Cost: the file is read once to verify its seal.
    """
    path, chosen = dataset_path(name, options), _options(name, options)
    official = describe(name, options).archive
    if not os.path.lexists(path):
        if official is not None:
            repair = (
                f"Fetch {' and '.join(official.md5)} from {official.url} and run: {prepare_command(name, official)}."
            )
            raise refusal(path, "does not exist", f"data set {name}, prepared from its official archive", repair)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        splits, attributes = _module(name).build(*(() if chosen is None else (chosen,)))
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
        FileRefused: the archive cannot be used, or is another data set's, or the file is there already.
        OSError: the file cannot be written.
    """
    described = describe(name)
    if described.archive is None:
        needing = ", ".join(each for each in available() if describe(each).archive)
        raise UnknownDataset(
            f"Data set {name!r} needs no archive: it is written on first use. Those that do: {needing}."
        )
    path = (out or dataset_path(name)).absolute()
    if path.is_dir():
        raise refusal(path, "is a folder", "a file", f"Give a file in it: --out {path / f'{name}.h5'}.")
    if os.path.lexists(path):
        raise refusal(path, "is there already", "a new file", "Delete it to prepare it anew, or give another --out.")
    facts = {"licence": described.licence, "source": described.source}
    others = {md5: each for each in available() if each != name for md5 in _published_md5(each)}
    return prepare_archive(
        name, described.archive, facts, source, path, allow_other=allow_other, tell=tell, others=others
    )


def _published_md5(name: str) -> list[str]:
    official = describe(name).archive
    return [] if official is None else [*official.md5.values(), *official.with_pickles.values()]


def _shape_and_classes(module: DatasetModule, archive: Official | None, options: Any) -> tuple[tuple[int, ...], int]:
    if options is not None:
        return options.input_shape, options.num_classes
    if archive is not None:
        return archive.image_shape, archive.num_classes
    return module.INPUT_SHAPE, module.NUM_CLASSES


def _options(name: str, options: BaseModel | None) -> BaseModel | None:
    """Return the options, or the defaults where there are any."""
    model = options_model(name)
    if options is None:
        return None if model is None else model()
    if model is None or not isinstance(options, model):
        raise TypeError(f"{options!r} are no options of data set {name!r}. Expected: options_model({name!r}).")
    return options


def _digest(name: str, options: BaseModel) -> str:
    """Return 8 hexadecimal digits that stand for the options: different numbers lie under different names."""
    content = {"version": vars(_module(name))["VERSION"], "options": options.model_dump(mode="json")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def expected(name: str, options: BaseModel | None = None) -> Expectation:
    """Return what a data set's file will hold; nothing is written.

    Args:
        name: the file in data/.
        options: see describe.

    Raises:
        UnknownDataset: no such data set.
        TypeError: these are not its options.

    Cost: what needs no archive is built in memory.
    """
    chosen, official = _options(name, options), describe(name, options).archive
    if official is not None:
        sizes = {"validation": official.num_validation, "test": official.num_examples["test"]}
        sizes["train"] = official.num_examples["train"] - official.num_validation
        return Expectation(
            official.image_shape, official.num_classes, sizes, "uint8", command=prepare_command(name, official)
        )
    splits, attributes = _module(name).build(*(() if chosen is None else (chosen,)))
    stored = check(dataset_path(name, options), splits, attributes)
    train = stored.splits["train"].inputs
    sizes = {split: len(examples.targets) for split, examples in stored.splits.items()}
    return Expectation(train.shape[1:], stored.num_classes, sizes, str(train.dtype), digest(stored))


def _folder() -> Path:
    if folder := os.environ.get("ESPALIER_DATA"):
        return Path(folder).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says that a relative path is to be ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "espalier" / "data"


def _require_known(name: str) -> None:
    if name in (known := available()):
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    listed = ", ".join(known)
    raise UnknownDataset(f"No data set named {name!r}.{guess} Known: {listed}. (A data set is a file in data/.)")


def _module(name: str) -> DatasetModule:
    _require_known(name)
    return cast(DatasetModule, importlib.import_module(f"data.{name}"))
