"""Commands about data sets: what there is, preparing from an official archive, checking a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.terminal import command, progress_bar, resumable

if TYPE_CHECKING:
    from data.archives import Official

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what there is and where it lies.")


@app.command("list", epilog="Example: espalier data list")
def list_all() -> None:
    """List all data sets, whether they are prepared, where they lie, and how to prepare those that are not."""
    from data import available, dataset_path, describe

    for name in available():
        path, described = dataset_path(name), describe(name)
        try:
            state = _state(name, path, described.archive)
        except OSError as error:  # a folder that this user may not read ends no list
            state = f"cannot be looked at: {path}: {error.strerror}"
        print(f"{name:20}{described.description}\n{'':20}{state}")


def _state(name: str, path: Path, archive: "Official | None") -> str:
    """Return whether a data set is prepared, begun, or how to prepare it.

    Raises:
        OSError: its folder cannot be looked at.
    """
    from data import prepare_command
    from data.archives import begun_from_other, partial_folder

    # Unlike os.path.exists, which takes what may not be looked at for what is not there.
    if _is_there(path):
        return f"prepared{_other_archive(path)}: {path}"
    if archive is None:
        return f"written on first use: {path}"
    words = prepare_command(name, archive)
    if not _is_there(partial_folder(path)):
        return f"fetch {' and '.join(archive.md5)} from {archive.url}, then: {words}"
    words += " --allow-other" if begun_from_other(name, archive, path) else ""
    return f"begun in {partial_folder(path)}; go on with the command that began it, such as: {words}"


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _other_archive(path: Path) -> str:
    """Return what is to be said of a file that --allow-other made of another archive."""
    from data.archives import OTHER_ARCHIVE
    from data.hdf5 import FileRefused, open_guarded, read_attribute

    try:
        with open_guarded(path, check_seal=False) as file:
            source = read_attribute(file, "source")
    except (FileRefused, OSError) as error:
        return f", but {str(error).removeprefix(f'{path} ')}"
    return ", not from the published archive" if OTHER_ARCHIVE in str(source) else ""


@app.command(epilog="Example: espalier data prepare cifar10 --from cifar-10-binary.tar.gz")
def prepare(
    name: Annotated[str, typer.Argument(help="A data set that needs an archive (see `espalier data list`).")],
    source: Annotated[
        Path, typer.Option("--from", help="The archive as it is published; for MNIST's kind the folder of its files.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default where studies find the data set by its name.")
    ] = None,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Take an archive in the same format with another checksum.")
    ] = False,
) -> None:
    """Prepare a data set from its official archive, which you have fetched; nothing is downloaded.

    The checksum has to be the published one. A killed command goes on where it stopped. The validation split is a fixed
    part of the official training examples; TinyImageNet's official validation images are its test split.
    """
    import data
    from suite.errors import UserError

    with resumable(f"what is decoded stays. Go on with the same command: {command()}"), progress_bar() as tell:
        try:
            prepared = data.prepare(name, source, out, allow_other=allow_other, tell=tell)
        except data.UnknownDataset as error:
            raise UserError(str(error)) from None
    sizes = ", ".join(f"{count:,} {split}" for split, count in prepared.num_examples.items())
    resumed = f" ({prepared.num_resumed:,} images were decoded before)" if prepared.num_resumed else ""
    print(f"{prepared.path}: {sizes}{resumed}")


@app.command(epilog="Example: espalier data verify my-data.h5")
def verify(
    file: Annotated[Path, typer.Argument(help="A prepared data set by its name, or an HDF5 file of ours or your own.")],
) -> None:
    """Read a whole data set, check everything that a study would, and say what it holds.

    Takes as much memory as the data set.
    """
    from data import available, read_dataset
    from data.hdf5 import is_sealed

    file = _prepared(str(file)) if str(file) in available() else file
    dataset = read_dataset(file)
    for name, split in dataset.splits.items():
        shape = " x ".join(map(str, dataset.input_shape))
        print(f"{name:12}{len(split):,} examples, inputs {shape} {split.inputs.dtype}")
    print(f"{'classes':12}{dataset.num_classes}")
    print(f"{'sha256':12}{dataset.sha256}")
    print(f"{'source':12}{dataset.source}")
    print(f"{'licence':12}{dataset.licence}")
    print(f"{'seal':12}{'unbroken' if is_sealed(file) else 'none: a file not written by espalier'}")


def _prepared(name: str) -> Path:
    """Return where a data set lies by its name.

    Raises:
        FileRefused: it is not there yet; with what makes it.
    """
    from data import dataset_path, describe, ensure
    from data.hdf5 import refusal

    path = dataset_path(name)
    if _is_there(path):
        return path
    if describe(name).archive is not None:
        return ensure(name)  # which says how it is prepared
    repair = "There is nothing to verify before a study has used it."
    raise refusal(path, "does not exist", f"data set {name}, which is written on first use", repair)
