"""What every archive is read through: no more bytes at once than asked for, no names that lead outside, one error."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from data.hdf5 import FileRefused, refusal

# What the standard library raises for archives that are cut, damaged or made up.
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,  # zipfile: a compression that it does not know
    UnicodeError,
    ValueError,
    OverflowError,
    LookupError,
    RecursionError,  # tarfile: headers of headers
)
_PIECE_BYTES = 256 << 10  # of content, read at once: below what any BoundedReader takes for a header
_END_BYTES = 128 << 10  # a zip file's end record with the longest comment has 64 KiB and 22 bytes


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, or fewer at the end."""


class Seekable(Readable, Protocol):
    """The same, with a place."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place and return it."""

    def tell(self) -> int:
        """Return the place."""


class BoundedReader(io.RawIOBase):
    """A file of which no more than so many bytes are read at once.

    The libraries that read archives ask for whole headers, whose lengths the archive states: gigabytes, if it likes.
    """

    def __init__(self, raw: Seekable, most_bytes: int) -> None:
        self._raw, self._most_bytes = raw, most_bytes

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes.

        Raises:
            ValueError: they are too many.
        """
        if size > self._most_bytes:
            raise ValueError(f"a header of {size} bytes, where {self._most_bytes} are the most")
        if size >= 0:
            return self._raw.read(size)
        content = self._raw.read(_END_BYTES + 1)
        if len(content) > _END_BYTES:
            raise ValueError(f"more than {_END_BYTES} bytes where a short end should be")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place.

        Raises:
            ValueError: it lies before the beginning, as sums of made-up lengths do.
        """
        if whence == io.SEEK_SET and offset < 0:
            raise ValueError("a member before the beginning")
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._raw.tell()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read anywhere."""
        return True


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turn whatever a library says about a damaged archive into one line."""
    try:
        yield
    except FileRefused:
        raise
    except _DAMAGE as error:
        said = str(error).strip().rstrip(".") or type(error).__name__
        raise refusal(path, f"is damaged or cut off: {said}", "a whole archive", "Fetch it again.") from error


def exactly(path: Path, stream: Readable, size_bytes: int, where: str = "") -> bytes:
    """Read so many bytes of what an archive holds.

    Raises:
        FileRefused: there are fewer.
    """
    pieces: list[bytes] = []
    left = size_bytes
    while left:
        pieces.append(stream.read(min(left, _PIECE_BYTES)))
        if not pieces[-1]:
            wrong = f"is cut off{where}: it has fewer bytes than it declares"
            raise refusal(path, wrong, "a whole file", "Fetch it again.")
        left -= len(pieces[-1])
    return b"".join(pieces)


def check_name(path: Path, name: str) -> None:
    """Refuse a name that would lead out of a folder, though nothing is ever written under a member's name.

    Raises:
        FileRefused: the name is absolute or holds "..": whoever made the archive did not mean well.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":" or "\0" in name:
        raise refusal(path, f"has a member that leads outside: {name[:80]!r}", "names inside of the archive")
