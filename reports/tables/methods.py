"""Accuracy per method and sparsity."""

import pandas as pd

from reports._format import count_text, fraction_text, percent_text, sparsity_text
from reports._results import Results
from reports.tables._aggregate import cell_names, settings, table, with_half_width
from reports.tables._column import number, text, with_interval

ORDER = 10
TITLE = "Accuracy per method and sparsity"
CAPTION = (
    "Mean over seeds ± half-width of the 95% Student-t interval, or [from, to] where it is cut at 0 or 100, which no "
    "accuracy passes; one seed has no interval. Accuracy is measured on the test set, at the last epoch and at the "
    "epoch chosen on validation data. The drop is taken seed by seed against the method's own dense network. The "
    "oracle column picks the best epoch by looking at the test set: it is an upper bound, not a result."
)
ABSENT = "No pruned network has a result."

COLUMNS = (
    text("Task", "task"),
    text("Method", "label", swatch=True),
    number("Sparsity", "sparsity", sparsity_text),
    number("Weights kept", "num_kept", count_text),
    with_interval("Test accuracy (%)", "test_accuracy", fraction_text),
    with_interval("Drop from own dense (points)", "drop", percent_text),
    with_interval("Epoch chosen on validation (%)", "test_accuracy_selected", fraction_text),
    number("Oracle: best test epoch (%)", "test_accuracy_oracle_best", percent_text),
    number("Seeds", "num_seeds", count_text),
)
_FRAME = (
    "task",
    "method",
    "label",
    "sparsity",
    "num_kept",
    "num_prunable",
    "test_accuracy",
    "test_accuracy_half_width",
    "drop",
    "drop_half_width",
    "test_accuracy_selected",
    "test_accuracy_selected_half_width",
    "test_accuracy_oracle_best",
    "num_seeds",
    "cells",
)


def build(results: Results) -> pd.DataFrame:
    """Return one row per task, method and sparsity; accuracies and drops are fractions."""
    records = []
    for setting, rows in settings(results):
        drop = rows["dense_test_accuracy"] - rows["test_accuracy"]
        if setting["method"] == "dense":
            drop = drop.mask(drop.notna())  # a network has no drop from itself
        records.append(
            {
                **setting,
                **with_half_width("test_accuracy", rows["test_accuracy"]),
                **with_half_width("drop", drop),
                **with_half_width("test_accuracy_selected", rows["test_accuracy_selected"]),
                "test_accuracy_oracle_best": rows["test_accuracy_oracle_best"].mean(),
                "num_seeds": rows["seed"].nunique(),
                "cells": cell_names(rows["cell"]),
            }
        )
    return table(records, _FRAME)
