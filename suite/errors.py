"""Errors that the user causes and the user can repair: one line with the value, the rule and the repair."""

import errno
import os
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from data.hdf5 import FileRefused

_OURS_OR_PYTHONS = (Path(__file__).parent, Path(os.__file__).parent)
_INSTALLED = {"site-packages", "dist-packages"}
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class UserError(ValueError):
    """Input that cannot be used. The command line prints its one line and exits with code 2."""


class ReportsMissing(UserError):
    """The extra for reports is not installed."""


class TrainingDiverged(UserError):
    """The loss of a training left the finite numbers or exploded; it would do so again."""

    def __init__(self, finding: str, cause: str, repair: str) -> None:
        """Say in one line what was found, what likely caused it, and what to change."""
        super().__init__(finding, cause, repair)
        self.finding, self.cause, self.repair = finding, cause, repair

    def __str__(self) -> str:
        """Return the one line."""
        return f"{self.finding} {self.cause} {self.repair}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string when none is near."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """Return the error for a name that is not among the known ones."""
    known = sorted(set(known))
    place = f" ({where})" if where else ""
    return UserError(f"No {what} named {name!r}.{nearest(name, known)} Known: {', '.join(known)}.{place}")


def bad_input(error: BaseException) -> str | None:
    """Return the one line for an error that its user can repair, or None for a defect of ours."""
    if isinstance(error, UserError | FileRefused):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        repair = "Give a folder of your own with free space; what is committed stays."
        return f"{error.filename or 'the disk'}: {error.strerror}. {repair}"
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, without its full stop; its type when it says nothing."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".")


def users_line(error: BaseException) -> str:
    """Return "FILE, line N" for the innermost line of a user's own code that an error came through, or nothing.

    A user's own is what is neither ours, nor Python's, nor installed.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        is_other = any(path.is_relative_to(folder) for folder in _OURS_OR_PYTHONS) or _INSTALLED & set(path.parts)
        if path.is_file() and not is_other:
            return f"{path.name}, line {frame.lineno}"
    return ""
