"""Tables and figures are found by file: every module of the folder without a leading underscore is one."""

import importlib
import pkgutil
from types import ModuleType


def extensions(package: str) -> dict[str, ModuleType]:
    """Import the extension modules of a package, in the order they ask for.

    Args:
        package: dotted name, for example "reports.tables".

    Returns:
        Modules by file name, sorted by (ORDER, name).
    """
    folder = importlib.import_module(package)
    names = [found.name for found in pkgutil.iter_modules(folder.__path__) if not found.name.startswith("_")]
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: (item[1].ORDER, item[0])))
