"""tiny-imagenet-200.zip: 200 classes of JPEGs in folders, and a file that says what the validation images show.

The labels of the official test images were never published, so the official validation images are the test split.
Class numbers follow the sorted WordNet identifiers; examples follow class and number. Members are read by name; none
is ever extracted to a path.
Source: http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.archives import jpeg
from data.archives.bounded import BoundedReader, check_name, damage_refused, exactly
from data.archives.official import Block, Contents, Official, Part, parts
from data.hdf5 import refusal

FOLDER = "tiny-imagenet-200"
_MOST_DIRECTORY_BYTES = 64 << 20  # the published archive has about 14 MB
_MOST_IMAGE_BYTES = 256 << 10  # 64 x 64 pixels have 12 KiB before they are compressed
_MOST_TEXT_BYTES = 16 << 20
_MOST_EXPANSION = 100  # JPEGs do not shrink, and text hardly by ten; deflate reaches a thousand
_TRAIN = re.compile(rf"{FOLDER}/train/(?P<wnid>[^/]+)/images/(?P=wnid)_(?P<number>[0-9]{{1,6}})\.JPEG")
_VALIDATION = re.compile(r"val_(?P<number>[0-9]{1,6})\.JPEG")
_WNID = re.compile("n[0-9]{8}")


class _Image(NamedTuple):
    name: str
    target: int


def survey(files: Mapping[str, Path], official: Official) -> Contents:
    """Read the directory of the archive and its lists; no image is decoded.

    Raises:
        FileRefused: damaged, hostile, not in this format, or lists that do not fit the images.

    Cost: about 1 KiB of memory per member.
    """
    (path,) = files.values()
    with _Archive(path) as archive:
        wnids = _wnids(path, archive, official)
        images = {"train": _train(path, archive, wnids), "test": _test(path, archive, wnids)}
        names = _class_names(path, archive, wnids)
    found: list[Part] = []
    for split, listed in images.items():
        if len(listed) > official.most(split):
            raise refusal(path, f"has {len(listed)} {split} images", f"at most {official.most(split)}")
        found += parts(split, 0, len(listed), official.image_shape)

    def read(wanted: Collection[Part]) -> Iterator[Block]:
        with _Archive(path) as archive:
            for part in found:
                if part in wanted:
                    yield _block(path, archive, part, images[part.split], official)

    return Contents(tuple(found), names, read, jpeg.decoder())


def _block(path: Path, archive: "_Archive", part: Part, images: Sequence[_Image], official: Official) -> Block:
    chosen = images[part.first : part.first + part.size]
    names = [image.name for image in chosen]
    contents = [archive.content(name, _MOST_IMAGE_BYTES) for name in names]
    pixels = jpeg.decode(path, names, contents, *official.image_shape[1:])
    return Block(part, pixels, np.array([image.target for image in chosen], np.int64))


class _Archive:
    """An open zip file whose members have been checked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = open(path, "rb")  # noqa: SIM115  closed with this object
        try:
            with damage_refused(path):
                bounded = BoundedReader(self._raw, _MOST_DIRECTORY_BYTES)
                self._zip = zipfile.ZipFile(bounded)
            self.members: dict[str, zipfile.ZipInfo] = {}
            for member in self._zip.infolist():
                self._check(member)
                self.members[member.filename] = member
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._raw.close()

    def content(self, name: str, most_bytes: int) -> bytes:
        """Return a member's content.

        Raises:
            FileRefused: there is none, or it is too large, or damaged.
        """
        member = self.members.get(name)
        if member is None:
            raise refusal(self._path, f"has no member {name!r}", f"those of the published {FOLDER}.zip")
        if member.file_size > most_bytes:
            wrong = f"declares {member.file_size} bytes for {name!r}"
            raise refusal(self._path, wrong, f"at most {most_bytes}")
        # Without a number zipfile inflates all there is before it compares that with what was declared.
        with damage_refused(self._path), self._zip.open(member) as stream:
            return exactly(self._path, stream, member.file_size, f" in {name!r}")

    def text(self, name: str, errors: str = "strict") -> list[str]:
        """Return a member's lines without the empty ones; errors: what to do about bytes that are no UTF-8."""
        with damage_refused(self._path):
            text = self.content(name, _MOST_TEXT_BYTES).decode("utf-8", errors)
        return [line for line in text.split("\n") if line.strip()]

    def _check(self, member: zipfile.ZipInfo) -> None:
        check_name(self._path, member.filename)
        shown = member.filename[:80]
        if member.filename in self.members:
            raise refusal(self._path, f"has two members {shown!r}", "one of each")
        if member.flag_bits & 1:
            raise refusal(self._path, f"has an encrypted member {shown!r}", "an archive without a password")
        if member.file_size > _MOST_EXPANSION * max(1, member.compress_size):
            wrong = f"declares {member.file_size} bytes for {shown!r} and stores {member.compress_size}"
            raise refusal(self._path, wrong, f"at most {_MOST_EXPANSION} times the stored bytes")


def _wnids(path: Path, archive: _Archive, official: Official) -> dict[str, int]:
    listed = sorted({line.strip() for line in archive.text(f"{FOLDER}/wnids.txt")})
    if bad := next((wnid for wnid in listed if not _WNID.fullmatch(wnid)), None):
        raise refusal(path, f"lists {bad[:40]!r} in wnids.txt", "WordNet identifiers: n and 8 digits")
    if len(listed) != official.num_classes:
        raise refusal(path, f"lists {len(listed)} classes in wnids.txt", f"{official.num_classes}", "Fetch it again.")
    return {wnid: target for target, wnid in enumerate(listed)}


def _train(path: Path, archive: _Archive, wnids: Mapping[str, int]) -> list[_Image]:
    found = []
    for name in archive.members:
        parts_of_name = _TRAIN.fullmatch(name)
        if parts_of_name is None:
            if name.startswith(f"{FOLDER}/train/") and name.lower().endswith((".jpeg", ".jpg")):
                raise refusal(path, f"has an image at {name[:80]!r}", "train/WNID/images/WNID_NUMBER.JPEG")
            continue
        wnid, number = parts_of_name["wnid"], int(parts_of_name["number"])
        if wnid not in wnids:
            raise refusal(path, f"has images of class {wnid!r}", "the classes of wnids.txt", "Fetch it again.")
        found.append((wnids[wnid], number, name))
    return [_Image(name, target) for target, _, name in sorted(found)]


def _test(path: Path, archive: _Archive, wnids: Mapping[str, int]) -> list[_Image]:
    found = []
    for line in archive.text(f"{FOLDER}/val/val_annotations.txt"):
        file_name, wnid = (*line.split("\t"), "", "")[:2]
        parts_of_name = _VALIDATION.fullmatch(file_name)
        if parts_of_name is None or wnid not in wnids:
            wrong = f"has a line {line[:60]!r} in val_annotations.txt"
            raise refusal(path, wrong, "val_NUMBER.JPEG, a tab, and a class of wnids.txt", "Fetch it again.")
        found.append((int(parts_of_name["number"]), f"{FOLDER}/val/images/{file_name}", wnids[wnid]))
    images = [_Image(name, target) for _, name, target in sorted(found)]
    listed = {image.name for image in images}
    present = {name for name in archive.members if name.startswith(f"{FOLDER}/val/images/") and name[-1] != "/"}
    if len(listed) < len(images) or listed != present:
        odd = min(listed ^ present, default="one of them twice")
        raise refusal(path, f"lists other images in val_annotations.txt than it has ({odd[:80]})", "one line for each")
    return images


def _class_names(path: Path, archive: _Archive, wnids: Mapping[str, int]) -> tuple[str, ...]:
    lines = [line.rstrip("\r").partition("\t") for line in archive.text(f"{FOLDER}/words.txt", "replace")]
    words = {wnid: text for wnid, _, text in lines}
    if missing := next((wnid for wnid in wnids if not words.get(wnid)), None):
        raise refusal(path, f"has no words for class {missing!r}", "one line of words.txt for each class")
    return tuple(f"{wnid} {words[wnid]}" for wnid in wnids)
