"""How predicted limits lie in a record and in the report's table, the same for every kind of cell that predicts."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from suite.limits.error_budget import ErrorBudget
from suite.limits.predict import Prediction
from suite.record import Metric, Record

NOT_DEFINED = {"lower": math.nan, "upper": math.nan, "probe_standard_error": math.nan, "error": math.nan}
_PARTS = ("sparsity_limit", "lower", "upper", "probe_standard_error")
_BUDGET_PARTS = (*(each.name for each in fields(ErrorBudget)), "total")


def prediction_metrics(predictions: list[Prediction], source: str) -> dict[str, Metric]:
    """Return predictions as metrics named SOURCE/LIMIT/FACTOR/PART."""
    metrics = {}
    for prediction in predictions:
        place = f"{source}/{prediction.limit}/{prediction.tolerance_factor:g}"
        for part in _PARTS:
            metrics[f"{place}/{part}"] = Metric(getattr(prediction.estimate, part), "1")
    return metrics


def budget_metrics(budgets: Mapping[str, ErrorBudget]) -> dict[str, Metric]:
    """Return error budgets at the loss tolerance itself as metrics named budget/LIMIT/PART, see ErrorBudget."""
    return {
        f"budget/{limit}/{part}": Metric(getattr(budget, part), "1")
        for limit, budget in budgets.items()
        for part in _BUDGET_PARTS
    }


def prediction_rows(record: Record, source: str, curvature: str) -> list[dict[str, Any]]:
    """Return the rows of table/limits for metrics that prediction_metrics named.

    "error" is the total of the limit's error budget: NaN without one, and at other factors than 1, where none is known.
    """
    places = sorted({name.rsplit("/", 1)[0] for name in record.metrics if name.startswith(f"{source}/")})
    tolerance = record.metrics["loss_tolerance_nats"].value
    rows = []
    for place in places:
        _, limit, factor = place.split("/")
        values = {"limit": limit, "source": source, "curvature": curvature, "tolerance_factor": float(factor)}
        values |= {"loss_tolerance_nats": float(factor) * tolerance}
        values |= {part: record.metrics[f"{place}/{part}"].value for part in _PARTS}
        budget = record.metrics.get(f"budget/{limit}/total") if float(factor) == 1.0 else None
        rows.append(values | {"error": budget.value if budget else math.nan})
    return rows
