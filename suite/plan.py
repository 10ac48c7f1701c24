"""A plan: the cells of a study and the rows of its report, and the frozen copy that lies in the study's folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from data.hdf5 import commit_bytes
from suite.errors import UserError
from suite.store import CellId
from suite.strict import Settings, validated
from suite.study import Study, Task


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    Attributes:
        id: kind and content key.
        config: the science fields; with the kind's VERSION and the inputs' keys they make the key.
        inputs: role -> cell whose record this one reads.
        title: for people; not in the key.
        threads: threads it computes with (also in config: sums depend on it).
        places: where files lie on this machine, for example the data set's; not in the key.
        processes: that compute it together, each with so many threads; more than one where its trainings share batches
            (in config as their data_parallel).
        task: name of its task, of the first one where several share the cell; not in the key, and "" in plans of
            before.
    """

    id: CellId
    config: dict[str, Any]
    inputs: dict[str, CellId]
    title: str
    threads: int
    places: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    task: str = ""


@dataclass(frozen=True)
class PlannedRow:
    """A place in the report that a cell will fill: fields that the study knows, values that the cell will bring."""

    cell: CellId
    fields: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Cells in an order in which every cell comes after its inputs, and the rows of the report."""

    study: Study
    tasks: dict[str, Task]
    cells: tuple[Cell, ...]
    rows: tuple[PlannedRow, ...]

    def to_json(self) -> str:
        """Return the frozen copy that lies in the study's folder."""
        return json.dumps(
            {
                "study": self.study.model_dump(mode="json"),
                "tasks": {name: task.model_dump(mode="json") for name, task in self.tasks.items()},
                "cells": [asdict(cell) for cell in self.cells],
                "rows": [asdict(row) for row in self.rows],
            },
            indent=1,
        )

    def freeze(self, folder: Path) -> None:
        """Write what was run into the study's folder: study.toml, tasks/NAME.toml with all overrides, plan.json."""
        (folder / "tasks").mkdir(exist_ok=True)
        for name, task in self.tasks.items():
            _write_toml(folder / "tasks" / f"{name}.toml", task)
        resolved = self.study.model_copy(update={"tasks": tuple(f"tasks/{name}.toml" for name in self.tasks)})
        _write_toml(folder / "study.toml", resolved)
        commit_bytes(folder / "plan.json", self.to_json().encode())


def _write_toml(path: Path, settings: Settings) -> None:
    commit_bytes(path, tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)).encode())


def plan_from_json(text: str, origin: Path) -> Plan:
    """Read a frozen plan back.

    Raises:
        UserError: it is not a plan of this version.
    """
    try:
        values = json.loads(text)
        return Plan(
            validated(Study, values["study"], str(origin)),
            {name: validated(Task, task, str(origin)) for name, task in values["tasks"].items()},
            tuple(cell_from(cell) for cell in values["cells"]),
            tuple(PlannedRow(CellId(**row["cell"]), row["fields"]) for row in values["rows"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{origin} is not a plan ({error}). Run the study again to write a new one.") from None


def cell_from(values: dict[str, Any]) -> Cell:
    """Return the cell of which these are the plain values, as asdict gives them."""
    inputs = {role: CellId(**cell_id) for role, cell_id in values.pop("inputs").items()}
    return Cell(id=CellId(**values.pop("id")), inputs=inputs, **values)
