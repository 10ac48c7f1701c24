"""Folders that are made for something that may be refused: then nothing of them is left."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launchers._submission import all_submissions
from suite.errors import UserError


@contextmanager
def removed_if_refused(study: Path) -> Iterator[None]:
    """Make a study's folder inside; a user's mistake or a full disk removes a folder that was not there before.

    It stays as soon as anything in it is worth something: a cell, a log, or a submission that may have left jobs.
    """
    made = missing_folders(study)
    try:
        yield
    except (UserError, OSError):
        if made and study.is_dir() and _is_worthless(study):
            shutil.rmtree(study, ignore_errors=True)
            remove_folders(made)
        raise


def missing_folders(folder: Path) -> list[Path]:
    """Return a folder and those above it that are not there yet, the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def remove_folders(made: list[Path]) -> None:
    """Remove those of them that are empty."""
    for each in made:
        with suppress(OSError):
            each.rmdir()


def _is_worthless(study: Path) -> bool:
    has_files = any(any((study / name).glob("*")) for name in ("cells", "logs"))
    return not has_files and not all_submissions(study)
