"""What --set says: a dotted key and its value, put into the tables of a study or a task before they are checked."""

import tomllib
from collections.abc import Sequence
from typing import Any

from suite.errors import UserError, unknown

Override = tuple[list[str], Any]  # the parts of a dotted key, and its value


def parse_override(text: str, known: Sequence[str]) -> Override:
    """Split "a.b=value"; the value is TOML, and text when it is not.

    Args:
        text: as it was typed.
        known: what the first part of the key may be.

    Raises:
        UserError: it has no key or no value, or its first part is not known.
    """
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {text!r} is no KEY=VALUE. Expected: for example --set training.epochs=1.")
    if keys[0] not in known:
        raise unknown("setting", keys[0], known, "the first part of --set KEY=VALUE")
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, value


def apply_overrides(values: dict[str, Any], overrides: Sequence[Override]) -> None:
    """Set each dotted key in nested tables, in place, making the tables that are not there.

    Raises:
        UserError: a key goes through a value that is no table.
    """
    for keys, value in overrides:
        table = values
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {'.'.join(keys)}: '{key}' is a value, not a table. Name a key inside a table.")
        table[keys[-1]] = value
