"""Strict, frozen settings read from TOML: an unknown key or a wrong type is one clear line, never a guess."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from suite.errors import UserError, nearest


class Settings(BaseModel):
    """Base of everything a user can write: frozen, typed strictly, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


def validated(model: type[S], values: Mapping[str, Any], where: str, overridden: Sequence[Sequence[str]] = ()) -> S:
    """Read values into a Settings model.

    Args:
        model: the class to build.
        values: plain values as TOML gives them.
        where: what the user would recognise, for example the file's name; it opens the error line.
        overridden: keys, in their parts, whose values were given by --set; a violation in one of them says so.

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
        first = [str(part) for part in _violations(error)[0]["loc"]]
        by_option = any(first[: len(keys)] == list(keys) for keys in overridden)
        raise UserError(f"{'--set on ' * by_option}{where}: {_first_violation(model, error)}") from None


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
    problems = _violations(error)
    first, told = problems[0], 1
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        line = f"unknown key '{key}'.{nearest(str(first['loc'][-1]), known)} Known: {', '.join(sorted(known))}."
    elif first["type"] == "missing":
        missing = [".".join(map(str, each["loc"])) for each in problems if each["type"] == "missing"]
        told, *before, last = len(missing), *(f"'{each}'" for each in missing)
        are = f"keys {', '.join(before)} and {last} are" if before else f"key {last} is"
        line = f"the {are} missing. Add {'them' if before else 'it'}."
    else:
        message = first["msg"].removeprefix("Value error, ")
        # A rule about a whole table names the values it is about; the table itself would fill the line.
        value = "" if isinstance(first["input"], dict) and first["type"] == "value_error" else f" = {first['input']!r}"
        line = f"{key}{value}: {message}" if key else message
        line += "" if line.endswith(("?", ".")) else "."
    others = len({problem["loc"] for problem in problems}) - told
    more = f" ({others} more after this one.)" if others else ""
    return line + more


def _violations(error: ValidationError) -> list[ErrorDetails]:
    """Return what is wrong, without what follows from it: a list whose elements are refused is too short as well."""
    problems = error.errors(include_url=False)
    inside = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["loc"] not in inside]


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
