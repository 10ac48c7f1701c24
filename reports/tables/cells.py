"""Every reported number and the committed cell that it came from."""

import pandas as pd

from reports._format import NOT_REACHED, percent_text, sparsity_text
from reports._names import limit_label, method_labels, source_label
from reports._reached import with_reached
from reports._results import Results
from reports._schema import records
from reports.tables._aggregate import table
from reports.tables._column import number, text

ORDER = 40
TITLE = "Where every number comes from"
CAPTION = (
    "One row per result and seed, with the name of its cell. The group of that name in results.h5 holds the "
    "configuration, the environment, the curves and the cost behind the number."
)
ABSENT = "No cell has a result."

COLUMNS = (
    text("Task", "task"),
    text("Result", "result"),
    text("Of", "subject", swatch=True),
    number("Seed", "seed", lambda value: f"{value:.0f}", "cell"),
    number("Sparsity", "sparsity", sparsity_text, "cell"),
    number("Test accuracy (%)", "test_accuracy", percent_text, "cell"),
    number("Epoch chosen on validation (%)", "test_accuracy_selected", percent_text, "cell"),
    number("Oracle: best test epoch (%)", "test_accuracy_oracle_best", percent_text, "cell"),
    text("Cell", "cell"),
)
_ACCURACIES = ("test_accuracy", "test_accuracy_selected", "test_accuracy_oracle_best")
_FRAME = ("task", "result", "subject", "method", "seed", "sparsity", *_ACCURACIES, "cell")


def build(results: Results) -> pd.DataFrame:
    """Return one row per pruning result, limit and spectrum; sparsities and accuracies are fractions."""
    labels = method_labels(results.rows)
    found = [*_pruned(results, labels), *_limits(results, labels), *_spectra(results, labels)]
    frame = table(found, _FRAME)
    task_order = {task: position for position, task in enumerate(results.tasks)}
    return frame.sort_values("task", key=lambda tasks: tasks.map(task_order), kind="stable", ignore_index=True)


def _pruned(results: Results, labels: dict[str, str]) -> list[dict[str, object]]:
    rows = results.requested.sort_values(["sparsity", "seed"], kind="stable")
    return [
        {**row, "result": "network", "subject": labels[row["method"]]}
        for method in labels
        for row in records(rows[rows["method"] == method])
    ]


def _limits(results: Results, labels: dict[str, str]) -> list[dict[str, object]]:
    return [
        {
            **row,
            "result": f"limit: {limit_label(row['limit'])}, {source_label(row['source'])}, "
            f"tolerance × {row['tolerance_factor']:g}{'' if row['is_reached'] else f', {NOT_REACHED}'}",
            "subject": labels.get(row["network"], row["network"]),
            "method": row["network"],
            "sparsity": row["sparsity_limit"],
        }
        for row in records(with_reached(results, results.limits))
    ]


def _spectra(results: Results, labels: dict[str, str]) -> list[dict[str, object]]:
    return [
        {
            **row,
            "result": f"spectrum: {source_label(row['source'])}",
            "subject": labels.get(row["network"], row["network"]),
            "method": row["network"],
        }
        for row in records(results.spectra)
    ]
