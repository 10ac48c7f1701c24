"""Strict, frozen settings read from TOML: an unknown key or a wrong type is one clear line, never a guess."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from suite.errors import UserError, nearest


class Settings(BaseModel):
    """Base of everything a user can write: frozen, typed strictly, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


def validated(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Read values into a Settings model.

    Args:
        model: the class to build.
        values: plain values as TOML gives them.
        where: what the user would recognise, for example the file's name; it opens the error line.

    Raises:
        UserError: the first violation, with its value and the rule; how many more there are.
    """
    try:
        text = json.dumps(values)
    except TypeError as error:  # TOML knows dates, no setting of ours does
        raise UserError(f"{where}: {error}. Expected: text, numbers, booleans, lists and tables.") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_violation(model, error)}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: the file is missing, unreadable, not text or not TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}. Mend that line.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file. Expected: TOML in UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Give the path of a readable .toml file.") from None


def _first_violation(model: type[BaseModel], error: ValidationError) -> str:
    """Return one line: the key, its value, the rule; and the number of further violations."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        line = f"unknown key '{key}'.{nearest(str(first['loc'][-1]), known)} Known: {', '.join(sorted(known))}."
    elif first["type"] == "missing":
        line = f"the key '{key}' is missing. Add it."
    else:
        message = first["msg"].removeprefix("Value error, ")
        # A rule about a whole table names the values it is about; the table itself would fill the line.
        value = "" if isinstance(first["input"], dict) and first["type"] == "value_error" else f" = {first['input']!r}"
        line = f"{key}{value}: {message}" if key else message
        line += "" if line.endswith(("?", ".")) else "."
    others = len({problem["loc"] for problem in problems}) - 1
    more = f" ({others} more after this one.)" if others else ""
    return line + more


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys allowed at a place inside a model, walking through nested models."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        choices = (field.annotation, *get_args(field.annotation))  # a model, X | None, or dict[str, X]
        current = next((each for each in choices if hasattr(each, "model_fields")), field.annotation)
    return list(getattr(current, "model_fields", {}))
