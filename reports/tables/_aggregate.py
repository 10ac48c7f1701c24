"""Groups of rows that differ only in their seed, and the mean of each of their columns."""

from collections.abc import Iterator, Sequence

import pandas as pd

from reports._names import method_labels, methods_in
from reports._results import Results
from reports._statistics import mean_interval

SETTING = ("task", "method", "sparsity", "num_kept", "num_prunable")


def settings(results: Results) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Yield (what was asked, its rows over seeds) for every task, method and sparsity, in the order of print.

    The exact count of kept weights is part of the setting: seeds that kept another count are another setting, so
    that a count is never an average.
    """
    rows = results.requested
    labels, order = method_labels(rows), methods_in(rows)
    task_order = results.tasks
    groups = [(dict(zip(SETTING, key, strict=True)), group) for key, group in rows.groupby(list(SETTING), sort=True)]
    groups.sort(key=lambda item: (task_order.index(str(item[0]["task"])), order.index(str(item[0]["method"]))))
    for setting, group in groups:
        setting["label"] = labels[str(setting["method"])]
        yield setting, group.sort_values("seed")


def with_half_width(name: str, values: Sequence[float] | pd.Series) -> dict[str, float]:
    """Return {name: mean, name_half_width: half-width of the 95% interval, before it is cut at any bound}."""
    interval = mean_interval(values)
    return {name: interval.mean, f"{name}_half_width": interval.half_width}


def cell_names(cells: pd.Series) -> str:
    """Return the distinct names of cells in one text, separated by spaces."""
    return " ".join(sorted({str(cell) for cell in cells if cell}))


def table(records: list[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Return the records as a frame that has all its columns even without a record."""
    return pd.DataFrame(records, columns=list(columns))
