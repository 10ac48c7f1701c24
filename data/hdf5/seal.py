"""Sealed files: one HDF5 file whose first 512 bytes carry the digest of all the others.

HDF5 reserves a *user block* before its own first byte and ignores it, so a sealed file is a plain HDF5 file for
h5py, h5dump and h5web. HDF5's own checksums cover chunks only, neither scalars nor attributes nor structure: the seal
covers every bit, itself included, because the whole block is compared.
"""

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py

from data.hdf5.commit import commit_bytes, replacing
from data.hdf5.guard import HDF5_ERRORS, refuse_hostile
from data.hdf5.refusal import refusal

USER_BLOCK_BYTES = 512  # the smallest that HDF5 allows
_CORE_BLOCK_BYTES = 1 << 20  # growth of the image in memory
_SEAL = re.compile(rb"espalier sha256=[0-9a-f]{64} size_bytes=([0-9]{1,19})\n\0*")
_AGAIN = "Delete it and let it be written again."
_image_number = itertools.count()


def sealed_image(build: Callable[[h5py.File], None]) -> bytes:
    """Build an HDF5 file in memory and seal it.

    Args:
        build: writes groups, data sets and attributes into the open file; its errors pass through.

    Returns:
        The bytes of the file. The same calls give the same bytes, today and tomorrow: no times are stored, and no
        latest-format flags that a crash could leave set.

    Cost: about three times the file's size in memory.
    """
    # HDF5 identifies open files by name, and this one is never on disk.
    name = f"espalier-image-{os.getpid()}-{next(_image_number)}"
    with h5py.File(
        name,
        "w",
        driver="core",
        backing_store=False,
        block_size=_CORE_BLOCK_BYTES,
        userblock_size=USER_BLOCK_BYTES,
    ) as file:
        build(file)
        file.flush()
        body: bytes = file.id.get_file_image()  # without its user block
    return _user_block(hashlib.sha256(body).hexdigest(), USER_BLOCK_BYTES + len(body)) + body


def write_sealed(path: Path, build: Callable[[h5py.File], None]) -> None:
    """Build, seal, validate and commit a file; nothing appears under its name before all of it is on disk.

    Raises:
        FileRefused: what was built would be refused on reading (a soft link, objects, ...).
        OSError: the file cannot be written; see `commit_bytes`.
    """
    image = sealed_image(build)
    with h5py.File.in_memory(file_image=image) as file:
        refuse_hostile(file, path)
    commit_bytes(path, image)


def write_sealed_on_disk(path: Path, build: Callable[[h5py.File], None]) -> None:
    """Do the same for a file that is too large for memory: it is built on disk, under a temporary name.

    The same calls give the bytes of `write_sealed`. `build` should write what is large with `write_rows`.

    Raises:
        FileRefused: what was built would be refused on reading.
        OSError: the file cannot be written; see `commit_bytes`.

    Cost: the file is written once and read once; memory for what `build` holds.
    """
    with replacing(path) as (descriptor, temporary):
        # Nobody else knows the name, and many cluster file systems have no locks to give.
        with h5py.File(temporary, "w", userblock_size=USER_BLOCK_BYTES, locking=False) as file:
            build(file)
            file.flush()
            size_bytes = file.id.get_filesize()
        os.ftruncate(descriptor, size_bytes)  # HDF5 does not know of the space that `write_rows` has reserved
        with h5py.File(temporary, "r", locking=False) as file:
            refuse_hostile(file, path)
        with open(descriptor, "rb", closefd=False) as handle:
            handle.seek(USER_BLOCK_BYTES)
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        os.pwrite(descriptor, _user_block(digest, size_bytes), 0)


@contextmanager
def open_sealed(path: Path) -> Iterator[h5py.File]:
    """Open a file that espalier wrote, read-only, after verifying every bit of it.

    Raises:
        FileRefused: missing, a folder, not readable, empty, truncated, not HDF5, not sealed, any bit flipped, or
            refused by the guard.

    Cost: the file is read once for the digest, about 1 s per GiB.
    """
    verify_seal(path)
    # A committed file never changes, so no lock is needed, and many cluster file systems have none to give.
    with _open_guarded(path, locking=False) as file:
        yield file


@contextmanager
def open_guarded(path: Path, *, check_seal: bool = True) -> Iterator[h5py.File]:
    """Open any HDF5 file, read-only, sealed or brought by a user.

    Args:
        path: the file.
        check_seal: verify the seal of a file that has one; False saves reading the whole file when the caller
            has another digest to check.

    Raises:
        FileRefused: as `open_sealed`, except that a file without a seal is welcome.
    """
    if is_sealed(path) and check_seal:
        verify_seal(path)
    _require_hdf5(path)
    with _open_guarded(path, locking="best-effort") as file:
        yield file


def verify_seal(path: Path) -> None:
    """Raise FileRefused unless every bit of the file is as it was sealed."""
    with _open_regular(path) as (handle, size_bytes):
        block = handle.read(USER_BLOCK_BYTES)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    if block == _user_block(digest, size_bytes):
        return
    seal = _SEAL.fullmatch(block)
    if seal is None and not block.startswith(b"espalier"):
        _require_hdf5(path)
        raise refusal(path, "carries no seal", "a file written by espalier", "Name the file that espalier wrote.")
    if seal is None or size_bytes == int(seal[1]):
        raise refusal(path, "is damaged: its content does not match its seal", "the bytes that were sealed", _AGAIN)
    kind = "truncated" if size_bytes < int(seal[1]) else "too long"
    raise refusal(path, f"is {kind}: it has {size_bytes} bytes", f"{int(seal[1])} bytes", _AGAIN)


def _user_block(digest: str, size_bytes: int) -> bytes:
    return f"espalier sha256={digest} size_bytes={size_bytes}\n".encode().ljust(USER_BLOCK_BYTES, b"\0")


@contextmanager
def _open_guarded(path: Path, locking: bool | str) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=locking)
    except HDF5_ERRORS as error:
        raise refusal(path, f"cannot be opened as HDF5: {error}", "a whole HDF5 file", "Fetch it again.") from error
    with file:
        refuse_hostile(file, path)
        yield file


def is_sealed(path: Path) -> bool:
    """Return whether a file carries a seal, unbroken or not.

    Raises:
        FileRefused: missing, a folder, not readable, empty.
    """
    with _open_regular(path) as (handle, _):
        return handle.read(len(b"espalier sha256=")) == b"espalier sha256="


def _require_hdf5(path: Path) -> None:
    if not h5py.is_hdf5(os.fspath(path)):
        raise refusal(path, "is not an HDF5 file", "HDF5", "Name another file, or fetch it again.")


@contextmanager
def _open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Yield an open, non-empty regular file and its size; turn what the system says about it into FileRefused."""
    try:
        status = os.stat(path)
        # Asked before opening: opening a named pipe would wait for its writer for ever.
        if stat.S_ISDIR(status.st_mode):
            raise refusal(path, "is a folder", "an HDF5 file", "Name a file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise refusal(path, "is not a regular file", "an HDF5 file")
        if status.st_size == 0:
            raise refusal(path, "is empty", "an HDF5 file", "Delete it, or fetch it again.")
        with open(path, "rb") as handle:
            yield handle, status.st_size
    except FileNotFoundError as error:
        raise refusal(path, "does not exist", "an HDF5 file", "Check the spelling and the folder.") from error
    except PermissionError as error:
        raise refusal(path, "may not be read by this user", "read permission", "Ask its owner, or chmod it.") from error
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}", "a readable file") from error
