"""Limits that are none: the tolerance held at every sparsity that was tried."""

import pandas as pd

from reports._format import NOT_REACHED, fraction_text
from reports._names import limit_label, limits_in, source_label
from reports._results import Results
from reports._schema import records


def with_reached(results: Results, limits: pd.DataFrame) -> pd.DataFrame:
    """Return rows of the limits table with a column `is_reached`.

    A limit is reached where a larger sparsity is known to break the tolerance. A prediction of 1 says that no
    sparsity does; a measured limit was searched up to the largest sparsity of its cell's curve, 1 if it has none.

    Args:
        results: holds the cells of the rows.
        limits: any of its rows of the limits table.
    """
    is_reached = [not row["sparsity_limit"] >= _largest_tried(results, row) for row in records(limits)]  # NaN: no limit
    return limits.assign(is_reached=pd.Series(is_reached, index=limits.index, dtype="bool"))


def not_reached_notes(limits: pd.DataFrame) -> list[str]:
    """Return a line for every limit of one network that is not reached by all seeds: a figure has no place for it.

    Args:
        limits: at one loss tolerance, with `is_reached`.
    """
    lines = []
    for limit in limits_in(limits):
        for source, rows in limits[limits["limit"] == limit].groupby("source", sort=False):
            missed = rows[~rows["is_reached"]]
            if missed.empty:
                continue
            kind = "Measured" if source == "measured" else f"Predicted, {source_label(str(source))}"
            what = NOT_REACHED if (missed["sparsity_limit"] >= 1.0).all() else _beyond(missed)
            seeds = f" with {len(missed)} of {len(rows)} seeds" if len(missed) < len(rows) else ""
            lines.append(f"{kind}: {limit_label(limit)} {what}{seeds}")
    return lines


def _beyond(missed: pd.DataFrame) -> str:
    return f"beyond {fraction_text(missed['sparsity_limit'].min())}%, the largest sparsity evaluated"


def _largest_tried(results: Results, row: dict[str, object]) -> float:
    if row["source"] != "measured":
        return 1.0
    curve = str(row["limit"]).removesuffix("_accuracy")
    sparsities = results.cell(str(row["cell"])).curves.get(f"{curve}_sparsity")
    return 1.0 if sparsities is None or len(sparsities) == 0 else float(sparsities.max())
