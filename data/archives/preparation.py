"""From an official archive to one file of our layout: check, decode in blocks that a kill does not lose, write.

Cost: an archive is read three times at most (checksum, survey, decoding). The folder NAME.h5.partial beside the file
takes the decoded size until the file is there; in memory lie a few blocks.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import numpy.typing as npt

from data._stored import SPLIT_NAMES, StreamedDigest
from data.archives import jpeg
from data.archives.blocks import BlockFolder, identities_in, identity_of
from data.archives.checksum import Checked, check_archive
from data.archives.official import Contents, Official, Part
from data.archives.validation import validation_indices
from data.hdf5 import FileRefused, refusal, sweep, write_array, write_rows, write_sealed_on_disk, write_texts

Tell = Callable[[float, str], None]  # takes the fraction done of a step and a text about it
OTHER_ARCHIVE = "not from the published archive"  # ends the source of what --allow-other has taken
_CHUNK_BYTES = 16 << 10  # whole images: a batch of random ones decodes little beside them


@dataclass(frozen=True)
class Prepared:
    """What was prepared: where it lies, how many examples its splits have, and how many were there already."""

    path: Path
    num_examples: dict[str, int]
    num_resumed: int


@dataclass(frozen=True)
class _Selection:
    """One split of the file: which examples of which official split, ascending."""

    name: str
    official_split: str
    indices: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


def partial_folder(out: Path) -> Path:
    """Return the folder beside a file where blocks lie until the file is written."""
    return out.with_name(f"{out.name}.partial")


def begun_from_other(name: str, official: Official, out: Path) -> bool:
    """Return whether what lies in the folder beside a file comes from an archive that only --allow-other takes."""
    published = {identity_of(name, official.md5, each) for each in ("", jpeg.decoder())}
    return not identities_in(partial_folder(out)) <= published


def prepare(
    name: str,
    official: Official,
    facts: Mapping[str, str],
    source: Path,
    out: Path,
    *,
    tell: Tell,
    allow_other: bool = False,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Prepared:
    """Make the file of a data set from its official archive.

    Args:
        name: of the data set; the validation split hangs on it.
        official: what is published of it.
        facts: source and licence, to be stored.
        source: the archive, or the folder of its files.
        out: the file to write; it is replaced in one step when everything is there.
        tell: takes the fraction done and a text.
        allow_other: take archives in the official format with another checksum and other numbers of examples.
        others: see check_archive.

    Raises:
        FileRefused: the archive is not the published one, or not in its format, or damaged. Nothing is left.
        OSError: the disk is full. Blocks that are done stay; the same call goes on from them.
    """
    checked = check_archive(source, official, allow_other, tell, others)
    contents = official.survey(checked.files, official)
    _check_contents(source, official, contents, checked.is_official)
    made = _make_folder(out)
    sweep(out.parent)
    identity = identity_of(name, checked.md5, contents.decoder)
    blocks = BlockFolder(partial_folder(out), identity, official.image_shape)
    blocks.begin()
    try:
        targets, num_resumed = _decoded(contents, blocks, tell)
        selections = _selections(source, name, official, targets)
        _write(out, _attributes(official, facts, checked, contents), contents, blocks, selections, tell)
    except FileRefused:
        blocks.remove()
        with contextlib.suppress(OSError):  # one that somebody else has put something into stays
            for folder in made:
                folder.rmdir()
        raise
    blocks.remove()
    return Prepared(out, {each.name: len(each.indices) for each in selections}, num_resumed)


def _make_folder(out: Path) -> list[Path]:
    """Make the folder of the file and those above it; return which were not there, the innermost first."""
    missing = list(takewhile(lambda folder: not folder.exists(), out.parents))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise refusal(out, "cannot be written: a file stands where its folder should", "a folder") from error
    return missing


def _check_contents(source: Path, official: Official, contents: Contents, is_official: bool) -> None:
    for split, expected in official.num_examples.items():
        found = contents.num_examples(split)
        if found == 0 or (is_official and found != expected):
            raise refusal(source, f"has {found} {split} examples", f"{expected}", "Fetch it again.")
    if odd := next((name for name in contents.class_names if not name.isprintable()), None):
        raise refusal(source, f"has a class named {odd[:40]!r}", "printable names")


def _decoded(contents: Contents, blocks: BlockFolder, tell: Tell) -> tuple[dict[str, npt.NDArray[np.int64]], int]:
    """Decode and save what is not saved yet; return all class numbers, and how many examples had been saved."""
    targets = {}
    for part in contents.parts:
        saved = blocks.load(part)
        if saved is not None:
            targets[part] = saved.targets
    num_resumed = sum(part.size for part in targets)
    pace = _Pace(num_resumed, sum(part.size for part in contents.parts), tell, "decoding", num_resumed)
    for block in contents.read([part for part in contents.parts if part not in targets]):
        blocks.save(block)
        targets[block.part] = block.targets
        pace.add(block.part.size)
    joined = {
        split: np.concatenate([targets[part] for part in contents.parts if part.split == split])
        for split in ("train", "test")
    }
    return joined, num_resumed


def _selections(
    source: Path, name: str, official: Official, targets: Mapping[str, npt.NDArray[np.int64]]
) -> list[_Selection]:
    train = targets["train"]
    counts = np.bincount(train, minlength=official.num_classes)
    if not counts.all():
        wrong = f"has no training example of class {int(np.argmin(counts))}"
        raise refusal(source, wrong, f"examples of all {official.num_classes} classes")
    wanted = max(1, official.num_validation * len(train) // official.num_examples["train"])
    validation = validation_indices(name, train, official.num_classes, wanted)
    if not len(validation):
        raise refusal(source, "has one training example of each class", "enough for a validation split: two of one")
    rest = np.setdiff1d(np.arange(len(train)), validation)
    chosen = {"train": ("train", rest), "validation": ("train", validation)}
    chosen["test"] = ("test", np.arange(len(targets["test"])))
    return [_Selection(split, of, indices, targets[of][indices]) for split, (of, indices) in chosen.items()]


def _attributes(
    official: Official, facts: Mapping[str, str], checked: Checked, contents: Contents
) -> dict[str, str | int | tuple[float, ...]]:
    listed = ", ".join(f"{file} md5 {digest}" for file, digest in checked.md5.items())
    origin = "" if checked.is_official else f"; {OTHER_ARCHIVE}"
    attributes: dict[str, str | int | tuple[float, ...]] = {
        "archive": listed,
        "classes": official.num_classes,
        "licence": facts["licence"],
        "mean": official.mean,
        "source": facts["source"] + origin,
        "std": official.std,
    }
    return attributes | ({"decoder": contents.decoder} if contents.decoder else {})


def _write(
    out: Path,
    attributes: Mapping[str, str | int | tuple[float, ...]],
    contents: Contents,
    blocks: BlockFolder,
    selections: list[_Selection],
    tell: Tell,
) -> None:
    assert [each.name for each in selections] == list(SPLIT_NAMES)  # the order of the digest
    digest = StreamedDigest(int(np.asarray(attributes["classes"])))
    for key in ("mean", "std"):
        digest.add(key, np.asarray(attributes[key], np.float64))
    pace = _Pace(0, sum(len(each.indices) for each in selections), tell, "writing")

    def build(file: h5py.File) -> None:
        for key in sorted(attributes):
            file.attrs[key] = attributes[key]
        if contents.class_names:
            write_texts(file, "class_names", contents.class_names)
        for each in selections:
            _write_split(file.create_group(each.name), each, contents, blocks, digest, pace)
        file.attrs["sha256"] = digest.hexdigest()

    write_sealed_on_disk(out, build)


def _write_split(
    group: h5py.Group,
    selection: _Selection,
    contents: Contents,
    blocks: BlockFolder,
    digest: StreamedDigest,
    pace: "_Pace",
) -> None:
    image_shape = blocks.image_shape
    shape = (len(selection.indices), *image_shape)

    def rows() -> Iterator[npt.NDArray[np.uint8]]:
        for part in contents.parts:
            if part.split == selection.official_split:
                images = _chosen_images(part, selection.indices, blocks)
                digest.rows(images)
                yield images
                pace.add(len(images))

    digest.begin(f"{selection.name}/inputs", np.dtype(np.uint8), shape)
    write_rows(group, "inputs", rows(), shape, np.uint8, chunk_bytes=_CHUNK_BYTES)
    digest.add(f"{selection.name}/targets", selection.targets)
    write_array(group, "targets", selection.targets)
    write_array(group, "source_index", selection.indices, split=selection.official_split)


def _chosen_images(part: Part, indices: npt.NDArray[np.int64], blocks: BlockFolder) -> npt.NDArray[np.uint8]:
    first, end = np.searchsorted(indices, [part.first, part.first + part.size])
    if first == end:
        return np.empty((0, *blocks.image_shape), np.uint8)
    block = blocks.load(part)
    if block is None:
        raise refusal(blocks.path, "lost a block while it was read", "one process at a time", "Run the command again.")
    return block.images[indices[first:end] - part.first]


class _Pace:
    """Tells how far a step is, how fast it goes and how long it will take."""

    def __init__(self, done: int, total: int, tell: Tell, doing: str, num_resumed: int = 0) -> None:
        self._done, self._total, self._tell = done, total, tell
        self._doing = f"{doing} ({num_resumed:,} were done before)" if num_resumed else doing
        self._num_before, self._begun_s = done, time.monotonic()
        self.add(0)

    def add(self, count: int) -> None:
        """Tell of so many examples more."""
        self._done += count
        rate = (self._done - self._num_before) / max(1e-9, time.monotonic() - self._begun_s)
        text = f"{self._doing}: {self._done:,} of {self._total:,} images"
        if rate and count:
            left_s = round((self._total - self._done) / rate)
            text += f", {rate:,.0f} images/s, {left_s // 60}:{left_s % 60:02} left"
        self._tell(self._done / max(1, self._total), text)
