"""What each method paid for its result."""

import pandas as pd

from reports._format import count_text, duration_text, si_text, sparsity_text
from reports._results import Results
from reports.tables._aggregate import cell_names, settings, table, with_half_width
from reports.tables._column import number, text

ORDER = 30
TITLE = "Cost per method and sparsity"
CAPTION = (
    "Mean over seeds of everything paid for one pruned network, its ancestors included: gradient steps, trainings, "
    "arithmetic weighted by the fraction of weights kept, and wall-clock time. Time depends on the machine; "
    "the other columns do not."
)
ABSENT = "No pruned network has a result."

COLUMNS = (
    text("Task", "task"),
    text("Method", "label", swatch=True),
    number("Sparsity", "sparsity", sparsity_text),
    number("Gradient steps", "gradient_steps", count_text),
    number("Trainings", "num_trainings", lambda value: f"{value:.4g}"),
    number("Training arithmetic", "train_flops", lambda value: si_text(value, "FLOP")),
    number("Wall-clock time", "wall_s", duration_text),
    number("Seeds", "num_seeds", count_text),
)
_FRAME = (
    "task",
    "method",
    "label",
    "sparsity",
    "num_kept",
    "num_prunable",
    "gradient_steps",
    "num_trainings",
    "train_flops",
    "wall_s",
    "wall_s_half_width",
    "num_seeds",
    "cells",
)


def build(results: Results) -> pd.DataFrame:
    """Return one row per task, method and sparsity: steps and trainings are counts, arithmetic is FLOPs, time is s."""
    records = []
    for setting, rows in settings(results):
        records.append(
            {
                **setting,
                "gradient_steps": rows["gradient_steps"].mean(),
                "num_trainings": rows["num_trainings"].mean(),
                "train_flops": rows["train_flops"].mean(),
                **with_half_width("wall_s", rows["wall_s"]),
                "num_seeds": rows["seed"].nunique(),
                "cells": cell_names(rows["cell"]),
            }
        )
    return table(records, _FRAME)
