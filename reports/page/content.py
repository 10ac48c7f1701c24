"""What the page shows, in plain data: the template decides only how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports._schema import records
from reports.figures._palette import styles
from reports.tables._column import Column


@dataclass(frozen=True)
class Link:
    """A file beside the page, by a path relative to it."""

    text: str
    path: str


@dataclass(frozen=True)
class TableValue:
    """One value of a table: its text, what it sorts by (empty: last), and where it comes from."""

    text: str
    sort_by: str
    cells: str
    colour: str


@dataclass(frozen=True)
class TableRow:
    """One row of a table; `is_summary` sets a mean apart from the rows it is the mean of."""

    values: tuple[TableValue, ...]
    is_summary: bool


@dataclass(frozen=True)
class TableBlock:
    """A table as the page shows it."""

    name: str
    title: str
    caption: str
    absent: str
    columns: tuple[Column, ...]
    rows: list[TableRow]
    links: tuple[Link, ...]


@dataclass(frozen=True)
class FigureBlock:
    """A figure as the page shows it; without a specification, `absent` says why."""

    name: str
    title: str
    caption: str
    absent: str
    specification: Mapping[str, Any] | None
    links: tuple[Link, ...]


@dataclass(frozen=True)
class TaskSection:
    """Everything about one task. `anchor` is safe inside a URL; `headline` is empty where nothing is concluded."""

    task: str
    anchor: str
    headline: str
    notes: tuple[str, ...]
    highest: tuple[str, ...]
    limits: tuple[str, ...]
    missing: tuple[str, ...]
    figures: list[FigureBlock] = field(default_factory=list)
    tables: list[TableBlock] = field(default_factory=list)


def table_rows(frame: pd.DataFrame, columns: tuple[Column, ...]) -> list[TableRow]:
    """Return every printed value of a frame with its order, its cells and, for a method, its colour."""
    colours = {method: style.colour for method, style in styles(_methods(frame)).items()}
    return [
        TableRow(
            values=tuple(_value(row, column, colours) for column in columns),
            is_summary=row.get("statistic") == "mean",
        )
        for row in records(frame)
    ]


def _value(row: Mapping[str, Any], column: Column, colours: Mapping[str, str]) -> TableValue:
    cells = row[column.traced_to] if column.traced_to else ""
    order = row[column.sort_by]
    return TableValue(
        text=column.show(row),
        sort_by="" if pd.isna(order) else str(order),
        cells="" if pd.isna(cells) else str(cells),
        colour=colours.get(str(row.get("method", "")), "") if column.swatch else "",
    )


def _methods(frame: pd.DataFrame) -> list[str]:
    return sorted({str(method) for method in frame["method"]}) if "method" in frame else []
