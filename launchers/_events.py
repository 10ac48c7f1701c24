"""What a launcher tells while it works, and how launchers are found."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from suite.attempt import Outcome
from suite.errors import unknown
from suite.extensions import available
from suite.plan import Cell


@dataclass(frozen=True)
class Started:
    """A try at a cell has begun."""

    cell: Cell


@dataclass(frozen=True)
class Advanced:
    """A running cell is this far."""

    cell: Cell
    fraction: float
    text: str


@dataclass(frozen=True)
class Finished:
    """A cell has come to its end for this run."""

    outcome: Outcome


@dataclass(frozen=True)
class Said:
    """Something about the run as a whole that a person should know, in one line."""

    text: str


Event = Started | Advanced | Finished | Said
Report = Callable[[Event], None]


def launchers() -> dict[str, ModuleType]:
    """Return all launchers by NAME."""
    modules = [importlib.import_module(f"launchers.{name}") for name in available("launchers")]
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}


def launcher(name: str) -> ModuleType:
    """Return one launcher.

    Raises:
        UserError: no launcher has that name.
    """
    known = launchers()
    if name not in known:
        raise unknown("launcher", name, known, "a launcher is a file in launchers")
    return known[name]
