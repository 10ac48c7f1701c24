"""Extension folders: every file without a leading underscore is an extension, named by its file."""

import importlib
from pathlib import Path
from types import ModuleType

from suite.errors import unknown


def folder_of(package: str) -> Path:
    """Return the folder of a package such as "suite.models"."""
    locations = importlib.import_module(package).__path__
    return Path(next(iter(locations)))


def available(package: str, suffix: str = ".py") -> list[str]:
    """Return the sorted names of all extensions in a package's folder."""
    return sorted(path.stem for path in folder_of(package).glob(f"*{suffix}") if not path.stem.startswith("_"))


def load(package: str, name: str, what: str) -> ModuleType:
    """Import the extension called name.

    Raises:
        UserError: no such file; the message gives the nearest name and all known ones.
    """
    known = available(package)
    if name not in known:
        raise unknown(what, name, known, f"a {what} is a file in {package.replace('.', '/')}")
    return importlib.import_module(f"{package}.{name}")


def settings_file(package: str, name: str, what: str) -> Path:
    """Return the path of the built-in TOML file called name (a task or a study)."""
    known = available(package, ".toml")
    if name not in known:
        raise unknown(what, name, known, f"or give the path of a .toml file; built-in: {package.replace('.', '/')}")
    return folder_of(package) / f"{name}.toml"
