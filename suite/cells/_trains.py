"""Which recipes a cell trains with: its processes share them, and its record says in which precision they ran."""

from suite.extensions import load
from suite.strict import Settings
from suite.study import Recipe


def trains_with(kind: str, config: Settings) -> list[Recipe]:
    """Return the recipes that a cell trains with: those its kind says, else all that its configuration holds."""
    module = load("suite.cells", kind, "kind of cell")
    if hasattr(module, "trains"):
        return list(module.trains(config))
    return [value for _, value in config if isinstance(value, Recipe)]
