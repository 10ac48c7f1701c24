"""Where the numbers were made: the distinct environments of the cells, flattened for print."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reports._mixtures import TRAINING_PRECISION
from reports._results import Cell, Results

# What a reader wants to see first; everything else is in the footer.
_SHOWN_FIRST = ("espalier", "commit", "python", "torch", "cuda", "numpy", "device", "gpu", "cpu")


@dataclass(frozen=True)
class Environment:
    """One environment and how many cells ran in it."""

    facts: tuple[tuple[str, str], ...]
    num_cells: int


def environments(results: Results) -> list[Environment]:
    """Return the distinct environments, the most used first."""
    counts = Counter(tuple(_flat(_places(cell))) for cell in results.cells.values() if cell.environment)
    return [
        Environment(facts, num_cells)
        for facts, num_cells in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def versions(results: Results) -> list[tuple[str, str]]:
    """Return the facts of the header: name and value of programs and devices, all values that occur."""
    found: dict[str, set[str]] = {}
    for environment in environments(results):
        for name, value in environment.facts:
            short = re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", value)  # a whole commit hash is for the footer
            found.setdefault(name.rpartition(".")[2], set()).add(short)
    return [(name, ", ".join(sorted(found[name]))) for name in _SHOWN_FIRST if name in found]


def cell_counts(results: Results) -> list[tuple[str, int]]:
    """Return how many cells of each kind the file holds, by name of the kind."""
    return sorted(Counter(cell.kind for cell in results.cells.values()).items())


def study_json(results: Results) -> str:
    """Return the frozen study as indented JSON."""
    return json.dumps(results.study, indent=2, ensure_ascii=False)


def _places(cell: Cell) -> dict[str, Any]:
    """Return where a cell ran, without what tells apart those that train: reports._mixtures looks at that."""
    return {name: value for name, value in cell.environment.items() if name != TRAINING_PRECISION}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(facts.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
