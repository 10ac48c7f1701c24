"""CIFAR-10 and CIFAR-100, binary version: a tar.gz whose members are records of label bytes and 3 x 32 x 32 pixels.

Members are read by name out of the stream; none is ever extracted to a path.
Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

import gzip
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from data.archives.bounded import BoundedReader, check_name, damage_refused, exactly
from data.archives.checksum import refuse_pickles
from data.archives.official import Block, Contents, Official, Part, parts
from data.hdf5 import refusal

_MOST_HEADER_BYTES = 1 << 20  # of tar's own records, and of members that are not images
_MOST_MEMBERS = 100
_IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """Where a version of CIFAR keeps what."""

    members: Mapping[str, tuple[str, ...]]  # split -> its files, in the official order
    label_bytes: int  # before each image; the last of them is the class number
    class_names: str  # the file that lists them
    pickled_folder: str  # of the Python version

    def survey(self, files: Mapping[str, Path], official: Official) -> Contents:
        """Read the names, sizes and class names of an archive, all of it once.

        Raises:
            FileRefused: damaged, hostile, not in this format, or without some of its members.
        """
        (path,) = files.values()
        sizes, names = self._index(path, official)
        runs: dict[str, tuple[Part, ...]] = {}
        for split, members in self.members.items():
            first = 0
            for member in members:
                count = sizes[member] // self.record_bytes
                runs[member] = tuple(parts(split, first, count, official.image_shape))
                first += count

        def read(wanted: Collection[Part]) -> Iterator[Block]:
            with _members(path) as listed:
                for member, stream in listed:
                    for part in runs.get(member.name, ()):
                        content = exactly(path, stream, part.size * self.record_bytes, f" in {member.name!r}")
                        if part in wanted:
                            yield self._block(path, part, content, official)

        return Contents(tuple(part for run in runs.values() for part in run), names, read)

    @property
    def record_bytes(self) -> int:
        """Length of one example."""
        return self.label_bytes + _IMAGE_BYTES

    def _index(self, path: Path, official: Official) -> tuple[dict[str, int], tuple[str, ...]]:
        images = {name: split for split, members in self.members.items() for name in members}
        sizes: dict[str, int] = {}
        names: tuple[str, ...] = ()
        with _members(path) as listed:
            for member, stream in listed:
                if member.name.startswith(f"{self.pickled_folder}/"):
                    raise refuse_pickles(path, official)
                if member.name in sizes:
                    raise refusal(path, f"has two members {member.name!r}", "one of each")
                split = images.get(member.name)
                most_bytes = _MOST_HEADER_BYTES if split is None else official.most(split) * self.record_bytes
                if not 0 <= member.size <= most_bytes:
                    raise refusal(path, f"has {member.size} bytes in {member.name!r}", f"at most {most_bytes}")
                if split is not None and (member.size == 0 or member.size % self.record_bytes):
                    wrong = f"has {member.size} bytes in {member.name!r}"
                    raise refusal(path, wrong, f"whole records of {self.record_bytes} bytes", "Fetch it again.")
                sizes[member.name] = member.size
                if member.name == self.class_names:
                    names = _class_names(path, stream.read(member.size), official.num_classes)
        for name in (*images, self.class_names):
            if name not in sizes:
                raise refusal(path, f"has no member {name!r}", f"those of {official.example()}")
        return sizes, names

    def _block(self, path: Path, part: Part, content: bytes, official: Official) -> Block:
        records = np.frombuffer(content, np.uint8).reshape(part.size, self.record_bytes)
        targets = records[:, self.label_bytes - 1].astype(np.int64)
        if targets.max() >= official.num_classes:
            wrong = f"has class number {targets.max()} in its {part.split} part"
            raise refusal(path, wrong, f"0 to {official.num_classes - 1}", "Fetch it again.")
        return Block(part, records[:, self.label_bytes :].reshape(part.size, *official.image_shape), targets)


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]:
    """Yield the regular members of a tar.gz, in its order, each with a stream of its content."""
    with damage_refused(path), gzip.open(path) as stream:
        bounded = BoundedReader(stream, _MOST_HEADER_BYTES)
        with tarfile.open(fileobj=bounded, mode="r:", errors="surrogateescape") as tar:
            yield _regular(path, tar)
        # The checksum of the whole stands behind the last member.
        if len(stream.read(_MOST_HEADER_BYTES)) == _MOST_HEADER_BYTES:
            raise refusal(path, "goes on behind its last member", "padding only", "Fetch it again.")


def _regular(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    for number, member in enumerate(tar):
        if number >= _MOST_MEMBERS:
            raise refusal(path, f"has more than {_MOST_MEMBERS} members", "those of the published archive")
        check_name(path, member.name)
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise refusal(path, f"has a member {member.name[:80]!r} that is a link or a device", "files and folders")
        content = tar.extractfile(member)
        assert content is not None
        yield member, content


def _class_names(path: Path, content: bytes, num_classes: int) -> tuple[str, ...]:
    names = tuple(content.decode("ascii").split())
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise refusal(path, f"names {len(set(names))} classes", f"{num_classes} different ones", "Fetch it again.")
    return names
