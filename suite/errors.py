"""Errors that the user causes and the user can repair: one line with the value, the rule and the repair."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Input that cannot be used. The command line prints its one line and exits with code 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string when none is near."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """Return the error for a name that is not among the known ones."""
    known = sorted(set(known))
    place = f" ({where})" if where else ""
    return UserError(f"No {what} named {name!r}.{nearest(name, known)} Known: {', '.join(known)}.{place}")
