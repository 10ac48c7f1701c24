"""results.h5 as the report sees it: its tables, and the cells they point to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from numpy.typing import NDArray

from data.hdf5 import open_sealed, read_array, read_attribute, read_text, read_texts
from reports._schema import SCHEMA, TABLES, UnreadableResults, empty_table, typed_table

Array = NDArray[Any]
# A results file may hold masks and every epoch of every network; a figure needs these few arrays only.
_DRAWN_ARRAYS = (
    *("diagonal", "off_diagonal", "num_steps", "probe_index", "eigenvalues"),
    *("row_magnitude", "row_l1_norm"),
)


@dataclass(frozen=True)
class Cell:
    """One committed unit of work: what it was asked, where it ran, and what a figure draws of it.

    `curves` are read for cells of the limits and sweeps tables, `arrays` for cells of the spectra and row_norms tables;
    both are empty for every other cell.
    """

    name: str
    is_ok: bool = True  # False: its numbers are not finite, and no table has a row of it
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Array] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The part of the name before the key: dense, prune, spectrum, limit, ..."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Results:
    """A collected study.

    Attributes:
        name: of the study.
        command: the command line that made the results.
        study: the frozen study, as parsed JSON.
        planned: task, method, label, sparsity, seed of every row that the study asks for; empty in older files.
        rows: one row per pruning result, columns of `reports._schema.ROWS`.
        limits: one row per predicted or measured limit, columns of LIMITS.
        spectra: one row per measured spectrum, columns of SPECTRA.
        row_norms: one row per network whose Hessian rows were measured, columns of ROW_NORMS.
        sweeps: one row per network that was pruned to many sparsities, columns of SWEEPS.
        cells: by name.
        num_planned: cells that the study has, with a result or without; 0 in older files, where it is not known.
    """

    name: str
    command: str
    study: Mapping[str, Any]
    rows: pd.DataFrame
    limits: pd.DataFrame
    spectra: pd.DataFrame
    row_norms: pd.DataFrame
    sweeps: pd.DataFrame
    cells: Mapping[str, Cell]
    planned: Sequence[Mapping[str, Any]] = ()
    num_planned: int = 0

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read a sealed results file.

        Raises:
            data.hdf5.FileRefused: the file is missing, damaged or hostile.
            UnreadableResults: it is a sound HDF5 file, but not a results file that this version reads.

        Cost: one pass over the file for its digest, then only tables, texts, curves and spectra.
        """
        with open_sealed(path) as file:
            _check_schema(file, path)
            tables = {table: _read_table(file, table, path) for table in TABLES}
            with_curves = {*tables["limits"]["cell"], *tables["sweeps"]["cell"]}
            with_arrays = {*tables["spectra"]["cell"], *tables["row_norms"]["cell"]}
            cells = {
                name: _read_cell(group, name, name in with_curves, name in with_arrays)
                for name, group in _subgroups(file, "cells").items()
            }
            study = _read_json(file, "study") if "study" in file else {}
            planned = _read_json(file, "planned")["rows"] if "planned" in file else ()
            planned = [row for row in planned if row["requested"]]
            name, command = _attribute(file, "study"), _attribute(file, "command")
            num_planned = int(file.attrs.get("num_planned", 0))
            parts: dict[str, Any] = {"cells": cells, "planned": planned, "num_planned": num_planned, **tables}
            return cls(name=name, command=command, study=study, **parts)

    @property
    def smoke_of(self) -> str:
        """The study that this one is a smoke of, or "" where it is none."""
        return str(self.study.get("smoke_of") or "")

    @property
    def requested(self) -> pd.DataFrame:
        """The rows the study asked for: without the intermediate rounds of iterative methods."""
        return self.rows[self.rows["requested"]]

    @property
    def tasks(self) -> list[str]:
        """Every task that was asked for or has a result, in the order of the study."""
        asked = names_in(self.study.get("tasks", ()))
        found = {str(task) for table in self._tables().values() for task in table["task"]}
        return [*asked, *sorted(found - set(asked))]

    def only(self, task: str) -> "Results":
        """Return the same study with the rows of one task."""
        tables: dict[str, Any] = {name: table[table["task"] == task] for name, table in self._tables().items()}
        planned = [row for row in self.planned if row["task"] == task]
        return replace(self, planned=planned, **tables)

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {name: getattr(self, name) for name in TABLES}

    def cell(self, name: str) -> Cell:
        """Return a cell, or an empty one when the file has only its row: a report never fails for that."""
        return self.cells.get(name, Cell(name))


def names_in(listed: object) -> list[str]:
    """Return the names in a list of names, in a list of objects that have a `name`, or in a mapping by name."""
    if isinstance(listed, Mapping):
        return [str(name) for name in listed]
    if not isinstance(listed, list | tuple):
        return []
    return [str(entry.get("name", "")) if isinstance(entry, Mapping) else str(entry) for entry in listed]


def _check_schema(file: h5py.File, path: Path) -> None:
    schema = _attribute(file, "schema")
    if schema != SCHEMA:
        raise UnreadableResults(
            f"{path} has schema {schema!r}, this version reads {SCHEMA!r}. "
            "Collect the study again with `espalier collect`."
        )


def _attribute(group: h5py.Group, name: str) -> str:
    value = read_attribute(group, name)
    return "" if value is None else str(value)


def _subgroups(group: h5py.Group, name: str) -> dict[str, h5py.Group]:
    if name not in group:
        return {}
    return {key: child for key, child in group[name].items() if isinstance(child, h5py.Group)}


def _read_table(file: h5py.File, table: str, path: Path) -> pd.DataFrame:
    if f"table/{table}" not in file or len(file[f"table/{table}"]) == 0:
        return empty_table(table)
    group = file[f"table/{table}"]
    return typed_table(table, {column: _read_column(group, column) for column in group}, str(path))


def _read_column(group: h5py.Group, column: str) -> Array | list[str]:
    is_text = isinstance(group[column], h5py.Dataset) and h5py.check_string_dtype(group[column].dtype) is not None
    return read_texts(group, column) if is_text else read_array(group, column, ndim=1)


def _read_cell(group: h5py.Group, name: str, with_curves: bool, with_arrays: bool) -> Cell:
    arrays = group["arrays"] if with_arrays and "arrays" in group else {}
    return Cell(
        name=name,
        is_ok=_attribute(group, "status") in ("", "ok"),
        config=_read_json(group, "config") if "config" in group else {},
        environment=_read_json(group, "environment") if "environment" in group else {},
        curves={key: read_array(group["curves"], key) for key in group.get("curves", {}) if with_curves},
        arrays={key: read_array(group["arrays"], key) for key in _DRAWN_ARRAYS if key in arrays},
    )


def _read_json(group: h5py.Group, name: str) -> dict[str, Any]:
    where = f"{group.file.filename}:{group.name.rstrip('/')}/{name}"
    try:
        content = json.loads(read_text(group, name))
    except json.JSONDecodeError as error:
        raise UnreadableResults(f"{where} is not JSON ({error}). Collect the study again.") from error
    if not isinstance(content, dict):
        raise UnreadableResults(f"{where} is a JSON {type(content).__name__}, not an object. Collect the study again.")
    return content
