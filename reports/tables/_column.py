"""How one column of a table is shown, so that a table keeps its numbers and is still ready to print."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import _format
from reports._schema import records

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column as printed in Markdown, LaTeX and on the page. The csv file has the columns of the frame instead.

    Attributes:
        heading: with the unit, in parentheses.
        show: row of the frame -> text.
        sort_by: column of the frame that orders the printed column.
        is_number: aligned to the right.
        traced_to: column of the frame with the names of the cells behind the value, separated by spaces;
            empty for a column that only names things.
        swatch: the value is a method, to be shown beside its colour.
    """

    heading: str
    show: Callable[[Row], str]
    sort_by: str
    is_number: bool = True
    traced_to: str = "cells"
    swatch: bool = False


def text(heading: str, column: str, *, swatch: bool = False) -> Column:
    """Return a column of words."""
    return Column(heading, lambda row: _word(row[column]), column, is_number=False, traced_to="", swatch=swatch)


def number(heading: str, column: str, show: Callable[[float], str], traced_to: str = "cells") -> Column:
    """Return a column of numbers, shown by a function of `reports._format`."""
    return Column(heading, lambda row: show(_float(row[column])), column, traced_to=traced_to)


def with_interval(
    heading: str,
    column: str,
    show: Callable[[float, float], str],
    traced_to: str = "cells",
) -> Column:
    """Return a column of means; the half-width is the column of the frame named `<column>_half_width`."""
    half_width = f"{column}_half_width"
    return Column(heading, lambda row: show(_float(row[column]), _float(row[half_width])), column, traced_to=traced_to)


def limit(heading: str, column: str, traced_to: str) -> Column:
    """Return a column of sparsity limits; beside it the frame has its half-width and two counts of seeds."""
    beside = [f"{column}_{name}" for name in ("half_width", "not_reached", "num_seeds")]

    def show(row: Row) -> str:
        half_width, num_not_reached, num_seeds = (row[name] for name in beside)
        return _format.limit_text(_float(row[column]), _float(half_width), int(num_not_reached), int(num_seeds))

    return Column(heading, show, column, traced_to=traced_to)


def printed(frame: pd.DataFrame, columns: tuple[Column, ...]) -> list[list[str]]:
    """Return the text of every value, one list per row of the frame."""
    return [[column.show(row) for column in columns] for row in records(frame)]


def _float(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)


def _word(value: Any) -> str:
    return _format.MISSING if pd.isna(value) or value == "" else str(value)
