"""What can be named in a study or a task, one line each."""

from collections.abc import Mapping
from typing import Any

from suite.extensions import available, folder_of, load
from suite.strict import read_toml

TOML_FOLDERS = {"studies": "suite.studies", "tasks": "suite.tasks"}
MODULE_FOLDERS = {"methods": "suite.pruning.methods", "models": "suite.models"}
KINDS = (*TOML_FOLDERS, *MODULE_FOLDERS)


def analyses() -> list[str]:
    """Return the kinds of cell that a study can name under `analyses`."""
    return [name for name in available("suite.cells") if hasattr(load("suite.cells", name, "kind of cell"), "plan")]


def catalogue(kind: str) -> dict[str, str]:
    """Return name -> one line for one of KINDS: a TOML file's description, or a module's first line."""
    if kind in TOML_FOLDERS:
        package = TOML_FOLDERS[kind]
        files = {name: folder_of(package) / f"{name}.toml" for name in available(package, ".toml")}
        return {name: _described(read_toml(path)) for name, path in files.items()}
    package = MODULE_FOLDERS[kind]
    return {name: (load(package, name, kind).__doc__ or "").splitlines()[0] for name in available(package)}


def _described(values: Mapping[str, Any]) -> str:
    variant = " (also :faithful)" if "faithful" in values else ""
    return f"{values.get('description', '')}{variant}"
