"""Is it the published archive? Its files are found, and their MD5 compared with those that the authors state.

MD5 tells a damaged download from a whole one, for which it is published; it is no defence against an attacker. So
whatever an archive holds is read without trust, the official one too.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from data.archives.official import Official
from data.hdf5 import refusal

_PIECE_BYTES = 4 << 20


class Checked(NamedTuple):
    """The files of an archive, by their official names, their digests, and whether all are the published ones."""

    files: dict[str, Path]
    md5: dict[str, str]
    is_official: bool


def check_archive(
    source: Path,
    official: Official,
    allow_other: bool,
    tell: Callable[[float, str], None],
    others: Mapping[str, str] = MappingProxyType({}),
) -> Checked:
    """Find and check what a data set is to be prepared from.

    Args:
        source: the archive; or where there are several files, the folder that holds them.
        official: what is published of it.
        allow_other: take files with another MD5 too.
        tell: takes the fraction done and a text.
        others: MD5 of what is published of other data sets -> the name of that. Layouts are shared, so nothing but the
            checksum tells MNIST from Fashion-MNIST.

    Raises:
        FileRefused: a file is missing, or has another MD5, or is published as another data set's, or is known to hold
            pickles.

    Cost: every file is read once.
    """
    files = _files(source, official)
    total = sum(path.stat().st_size for path in files.values())
    done = 0
    found = {}
    for file_name, path in files.items():
        digest = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as handle:
            while piece := handle.read(_PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                tell(done / max(1, total), f"checking {path.name}")
        found[file_name] = digest.hexdigest()
    for file_name, path in files.items():
        if other := others.get(found[file_name]):
            rule, repair = (
                _published(official),
                f"Prepare it as what it is: espalier data prepare {other} --from {source}.",
            )
            raise refusal(path, f"is published as part of data set {other!r}", rule, repair)
        _check(path, found[file_name], official, file_name, allow_other)
    return Checked(files, found, found == dict(official.md5))


def refuse_pickles(path: Path, official: Official) -> Exception:
    """Return the error for an archive of pickles: reading one runs whatever its writer put into it."""
    wrong = "is the Python version, whose pickles are not read: a pickle can run code"
    return refusal(path, wrong, _published(official), f"Fetch {official.example()} from {official.url}.")


def _files(source: Path, official: Official) -> dict[str, Path]:
    if len(official.md5) == 1:
        (only,) = official.md5
        _require_file(source, official)
        return {only: source}
    if not source.is_dir():
        wrong = "is not a folder" if source.exists() else "does not exist"
        raise refusal(source, wrong, f"the folder that holds {', '.join(official.md5)}", f"Fetch: {official.url}")
    for file_name in official.md5:
        _require_file(source / file_name, official)
    return {file_name: source / file_name for file_name in official.md5}


def _require_file(path: Path, official: Official) -> None:
    rule = _published(official)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise refusal(path, "does not exist", rule, f"Fetch it from {official.url}.") from error
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}", rule) from error
    if not stat.S_ISREG(mode):
        raise refusal(path, "is a folder" if stat.S_ISDIR(mode) else "is not a regular file", rule)
    if not os.access(path, os.R_OK):
        raise refusal(path, "may not be read by this user", "read permission", "Ask its owner, or chmod it.")


def _check(path: Path, md5: str, official: Official, file_name: str, allow_other: bool) -> None:
    if md5 in official.with_pickles.values():
        raise refuse_pickles(path, official)
    if md5 != official.md5[file_name] and not allow_other:
        rule = f"md5 {official.md5[file_name]} of the published {file_name}"
        repair = f"Fetch it again from {official.url}, or take it all the same with --allow-other."
        raise refusal(path, f"has md5 {md5}", rule, repair)


def _published(official: Official) -> str:
    return f"the published {' and '.join(official.md5)}"
