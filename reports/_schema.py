"""The columns of results.h5 that a report reads: name, type, and what an absent table looks like."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from data.hdf5 import FileRefused

SCHEMA = "espalier-results/1"

ROWS: Mapping[str, str] = {
    "task": "str",
    "method": "str",
    "label": "str",
    "sparsity": "float64",
    "seed": "int64",
    "cell": "str",
    "requested": "bool",
    "num_prunable": "int64",
    "num_kept": "int64",
    "test_accuracy": "float64",
    "test_accuracy_selected": "float64",
    "test_accuracy_oracle_best": "float64",
    "validation_accuracy": "float64",
    "train_loss": "float64",
    "dense_test_accuracy": "float64",
    "gradient_steps": "int64",
    "num_trainings": "int64",
    "train_flops": "float64",
    "wall_s": "float64",
}
LIMITS: Mapping[str, str] = {
    "task": "str",
    "seed": "int64",
    "network": "str",
    "limit": "str",
    "source": "str",
    "curvature": "str",
    "loss_tolerance_nats": "float64",
    "tolerance_factor": "float64",
    "sparsity_limit": "float64",
    "lower": "float64",
    "upper": "float64",
    "probe_standard_error": "float64",
    "error": "float64",
    "cell": "str",
}
SPECTRA: Mapping[str, str] = {"task": "str", "seed": "int64", "network": "str", "cell": "str", "source": "str"}
ROW_NORMS: Mapping[str, str] = {
    "task": "str",
    "seed": "int64",
    "network": "str",
    "cell": "str",
    "num_rows": "int64",
    "num_zero_rows": "int64",
}
SWEEPS: Mapping[str, str] = {
    "task": "str",
    "seed": "int64",
    "network": "str",
    "cell": "str",
    "num_sparsities": "int64",
    "num_evaluated": "int64",
}

TABLES: Mapping[str, Mapping[str, str]] = {
    "rows": ROWS,
    "limits": LIMITS,
    "spectra": SPECTRA,
    "row_norms": ROW_NORMS,
    "sweeps": SWEEPS,
}


class UnreadableResults(FileRefused):
    """A results file that opens, but does not hold what this version of the report reads. One line."""


def empty_table(table: str) -> pd.DataFrame:
    """Return the table without rows but with every column in its type, so that no caller needs a special case."""
    return pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in TABLES[table].items()})


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries by column name."""
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


def typed_table(table: str, columns: Mapping[str, object], where: str) -> pd.DataFrame:
    """Check one columnar table and give each column its type; columns this version does not know are kept.

    Args:
        table: one of TABLES.
        columns: one 1-D array per column, all of one length.
        where: the file, for the messages.

    Raises:
        UnreadableResults: a column is missing, has another length than the others, or cannot take its type.
    """
    missing = [column for column in TABLES[table] if column not in columns]
    if missing:
        raise UnreadableResults(
            f"{where}: /table/{table} has no column {', '.join(missing)}. "
            f"Expected: {', '.join(TABLES[table])}. Collect the study again with this version."
        )
    lengths = {column: len(values) for column, values in columns.items()}  # type: ignore[arg-type]
    if len(set(lengths.values())) > 1:
        raise UnreadableResults(
            f"{where}: the columns of /table/{table} differ in length ({lengths}). "
            "Expected: one value per row. Collect the study again."
        )
    frame = pd.DataFrame(dict(columns))
    try:
        return frame.astype(dict(TABLES[table]))
    except (TypeError, ValueError) as error:
        raise UnreadableResults(
            f"{where}: /table/{table} holds a value of another type ({error}). "
            f"Expected: {dict(TABLES[table])}. Collect the study again."
        ) from error
