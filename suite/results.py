"""Collect a study: every committed cell copied into one real file, and the columnar tables that reports read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.hdf5 import open_sealed, write_array, write_sealed, write_text, write_texts
from suite.extensions import load
from suite.plan import Plan, PlannedRow
from suite.record import read_record
from suite.store import Store

SCHEMA = "espalier-results/1"
FILE_NAME = "results.h5"


@dataclass(frozen=True)
class Collected:
    """What a collection found."""

    path: Path
    num_planned: int
    num_committed: int


def collect(plan: Plan, store: Store, command: str) -> Collected:
    """Write results.h5 from whatever is committed; cells of the plan that are missing are counted, not invented.

    The file is a function of the cells, the plan and the command alone, whatever order the cells were made in.

    Args:
        plan: which cells, and which rows of the report they fill.
        store: where they lie.
        command: the command line that asks for it, kept as an attribute.

    Raises:
        FileRefused: a committed cell is damaged. OSError: results.h5 cannot be written.
    """
    committed = [cell for cell in plan.cells if store.is_committed(cell.id)]

    def build(file: h5py.File) -> None:
        file.attrs.update(schema=SCHEMA, study=plan.study.name, command=command)
        file.attrs.update(num_planned=len(plan.cells), num_committed=len(committed))
        write_text(file, "study", json.dumps(_resolved(plan), indent=1))
        write_text(file, "planned", json.dumps({"rows": [row.fields for row in plan.rows if "sparsity" in row.fields]}))
        for cell in sorted(committed, key=lambda cell: cell.id.name):
            with open_sealed(store.path(cell.id)) as source:
                source.copy(source["/"], file.require_group("cells"), cell.id.name)
        keys = {cell.id.key for cell in committed}
        _write_tables(file, [row for row in plan.rows if row.cell.key in keys])

    path = store.folder / FILE_NAME
    write_sealed(path, build)
    return Collected(path, len(plan.cells), len(committed))


def _resolved(plan: Plan) -> dict[str, Any]:
    """Return the study with the settings of every task as they were run, overrides included."""
    tasks = {name: task.model_dump(mode="json") for name, task in plan.tasks.items()}
    return plan.study.model_dump(mode="json") | {"tasks": tasks}


def _write_tables(file: h5py.File, rows: Sequence[PlannedRow]) -> None:
    """Fill table/NAME/COLUMN from the cells just copied, in the plan's order."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        group = file[f"cells/{row.cell.name}"]
        if group.attrs["status"] != "ok":
            continue  # a diverged network has no accuracy to average; the report names what is missing
        module = load("suite.cells", row.cell.kind, "kind of cell")
        config = module.Config.model_validate_json(group["config"].asstr()[()])
        for table, values in module.tables(config, read_record(group, with_arrays=False)).items():
            tables.setdefault(table, []).extend(row.fields | each | {"cell": row.cell.name} for each in values)
    for table, records in tables.items():
        for column in records[0]:
            _write_column(file.require_group(f"table/{table}"), column, [record[column] for record in records])


def _write_column(group: h5py.Group, name: str, values: list[Any]) -> None:
    if isinstance(values[0], str):
        write_texts(group, name, values)
    else:
        write_array(group, name, np.asarray(values))
