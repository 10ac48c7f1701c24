"""How a study stands, read from its folder alone: committed cells are the truth, logs explain what is missing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite.claim import Owner, live_owners
from suite.errors import UserError, nearest
from suite.plan import Cell, Plan, plan_from_json
from suite.store import Store


@dataclass(frozen=True)
class Standing:
    """How one cell of a plan stands.

    Attributes:
        name: KIND-KEY, as its files are called.
        kind: of the cell.
        title: for people.
        state: "done", "running" (somebody holds a live claim), "failed" (its last attempt left a log) or "missing".
            Where jobs were queued (launchers._standing) also "queued", "waiting" (for its inputs), "lost" (its job is
            gone and left neither record nor reason), or "unknown" (nobody answers for its job).
        message: why, in one line.
        wave: the longest chain of cells that it waits for, among all of the plan; where jobs were queued.
        job: that holds or held it.
        node: where it runs or ran last.
        attempts: tries begun, as its jobs told; 0 where nobody tells.
    """

    name: str
    kind: str
    title: str
    state: str
    message: str = ""
    wave: int | None = None
    job: str = ""
    node: str = ""
    attempts: int = 0


def read_plan(folder: Path) -> Plan:
    """Read the frozen plan of a study's folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    path = folder / "plan.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no study (no plan.json). Expected: a folder that `espalier run` made.")
    return plan_from_json(path.read_text(encoding="utf-8", errors="replace"), path)


def standings(plan: Plan, store: Store, is_over: Callable[[Cell, Owner], bool] = lambda *_: False) -> list[Standing]:
    """Return the state of every cell, in the plan's order.

    Args:
        plan: the study's.
        store: its folder.
        is_over: whether the owner of a live claim on a cell works no more, where somebody knows better than the claim.

    Raises:
        FileRefused: a committed cell is damaged.
    """
    found = []
    owners = live_owners(store.folder / "cells")
    for cell in plan.cells:
        node, log = "", store.log_path(cell.id)
        if store.is_committed(cell.id):
            state, message = "done", ""
        elif (owner := owners.get(cell.id.name)) is not None and not is_over(cell, owner):
            state, message, node = "running", owner.text, owner.host
        elif log.exists():
            state, message = "failed", _last_line(log)
        else:
            state, message = "missing", ""
        found.append(Standing(cell.id.name, cell.id.kind, cell.title, state, message, node=node))
    return found


def find_cell(plan: Plan, text: str) -> Cell:
    """Return the cell that a person means.

    Args:
        plan: where to look.
        text: the beginning of a cell's name (KIND-KEY) or of its key, or its title, as `espalier status` prints them.

    Raises:
        UserError: no cell, or more than one.
    """
    exact = [cell for cell in plan.cells if text in (cell.title, cell.id.name, cell.id.key)]
    found = exact or [cell for cell in plan.cells if text and (cell.id.name.startswith(text) or _has_key(cell, text))]
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(text, [name for cell in plan.cells for name in (cell.title, cell.id.name)])
        raise UserError(f"No cell {text!r} in this study.{near} Expected: a name, title or key as `status` prints it.")
    some = ", ".join(cell.id.name for cell in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(f"{text!r} means {len(found)} cells: {some}{more}. Expected: one; give more of its name.")


def _has_key(cell: Cell, text: str) -> bool:
    return cell.id.key.startswith(text.lower())


def counts(found: list[Standing]) -> dict[str, dict[str, int]]:
    """Return kind -> state -> number of cells."""
    by_kind: dict[str, Counter[str]] = {}
    for standing in found:
        by_kind.setdefault(standing.kind, Counter())[standing.state] += 1
    return {kind: dict(states) for kind, states in by_kind.items()}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
