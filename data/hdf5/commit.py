"""Atomic commit of whole files: under the final name there is the old content or the new one, never a part.

Cost: one sequential write and two fsyncs. The rename is atomic on POSIX file systems and on NFS within one folder.
"""

import contextlib
import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\.tmp-(?P<host>[^-]+)-(?P<pid>[1-9][0-9]{0,8})-[0-9a-f]{8}-.+", re.DOTALL)
_FOREIGN_LIFETIME_S = 24 * 3600.0


def commit_bytes(path: Path, content: bytes) -> None:
    """Replace or create a file in one step that survives kill -9, a full disk and a power cut.

    Args:
        path: final name; its folder must exist. An existing file is replaced.
        content: everything the file shall hold.

    Raises:
        OSError: disk full (ENOSPC), over quota (EDQUOT), no permission. The old file is untouched and the temporary
            file is removed; only a killed process leaves its temporary file behind, for `sweep`.
    """
    with replacing(path) as (descriptor, _):
        _write_all(descriptor, content)


@contextmanager
def replacing(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield the descriptor and the temporary name of a file that takes the final name when the block ends well.

    Raises:
        OSError: as `commit_bytes`.
    """
    temporary = path.with_name(temporary_name(path.name))
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield descriptor, temporary
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # NFS reports a full disk only here
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _fsync_folder(path.parent)


def sweep(folder: Path) -> int:
    """Remove the temporary files of commits that can no longer finish.

    A temporary file of this host goes when its process is gone. One of another host goes when it is older than a day,
    because that host's processes cannot be asked.

    Returns:
        Number of files removed.

    Raises:
        OSError: the folder cannot be listed.
    """
    num_removed = 0
    with os.scandir(folder) as entries:
        abandoned = [Path(entry.path) for entry in entries if _is_abandoned(entry)]
    for path in abandoned:
        with contextlib.suppress(OSError):  # another sweep may be faster; a leftover does no harm
            path.unlink()
            num_removed += 1
    return num_removed


def temporary_name(name: str) -> str:
    """Return a name that nobody else gives, of a file that `sweep` removes when this process is gone."""
    return f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{name}"


def _host() -> str:
    # A hyphen separates the parts of a temporary name, and host names may hold hyphens but no underscores.
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "_"


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # Linux writes at most 2 GiB per call, and less than asked on a nearly full disk
        rest = rest[os.write(descriptor, rest) :]


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    parts = _TEMPORARY.fullmatch(entry.name)
    if parts is None:
        return False
    if parts["host"] == _host():
        return not _is_alive(int(parts["pid"]))
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN_LIFETIME_S
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's process
    return True
