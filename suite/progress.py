"""How a study stands, read from its folder alone: committed cells are the truth, logs explain what is missing."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from suite.errors import UserError
from suite.plan import Plan, plan_from_json
from suite.store import Store


@dataclass(frozen=True)
class Standing:
    """One cell of a plan: "done", "failed" (its last attempt left a log) or "missing"."""

    name: str
    kind: str
    title: str
    state: str
    message: str = ""


def read_plan(folder: Path) -> Plan:
    """Read the frozen plan of a study's folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    path = folder / "plan.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no study (no plan.json). Expected: a folder that `espalier run` made.")
    return plan_from_json(path.read_text(encoding="utf-8", errors="replace"), path)


def standings(plan: Plan, store: Store) -> list[Standing]:
    """Return the state of every cell, in the plan's order.

    Raises:
        FileRefused: a committed cell is damaged.
    """
    found = []
    for cell in plan.cells:
        log = store.log_path(cell.id)
        if store.is_committed(cell.id):
            state, message = "done", ""
        elif log.exists():
            state, message = "failed", _last_line(log)
        else:
            state, message = "missing", ""
        found.append(Standing(cell.id.name, cell.id.kind, cell.title, state, message))
    return found


def counts(found: list[Standing]) -> dict[str, dict[str, int]]:
    """Return kind -> state -> number of cells."""
    by_kind: dict[str, Counter[str]] = {}
    for standing in found:
        by_kind.setdefault(standing.kind, Counter())[standing.state] += 1
    return {kind: dict(states) for kind, states in by_kind.items()}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
