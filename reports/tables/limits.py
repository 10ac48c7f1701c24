"""Predicted sparsity limits held against measured ones, and the SLQ estimate against the dense Hessian."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports._format import difference_text, nats_text, percent_text
from reports._names import limit_label, limits_in, ordered
from reports._reached import with_reached
from reports._results import Results
from reports._schema import records
from reports.tables._aggregate import cell_names, table, with_half_width
from reports.tables._column import Column, limit, number, text, with_interval

ORDER = 20
TITLE = "Sparsity limits, predicted and measured"
CAPTION = (
    "The largest sparsity whose training loss stays within the tolerance. Predicted: estimated from Hessian products "
    "(stochastic Lanczos quadrature, SLQ, with its standard error over probes; the masked quadratic by conjugate "
    "gradients on a convexified Hessian), and exactly from the dense Hessian. Error: of a limit that was searched to "
    "a tolerance, for probes, Lanczos steps and examples left out together, at the loss tolerance itself. Measured: "
    "without touching the kept weights (one-shot) and after training them again (fine-tuned). Differences are in "
    "points of sparsity; rows of several seeds carry the 95% Student-t interval, written [from, to] where it is cut at "
    "0 or 100, which no sparsity passes. Not reached: the tolerance is kept even with no weight left; beyond: up to "
    "the largest sparsity that was evaluated. Such a seed counts in a mean with that sparsity, in no difference, and "
    "leaves both without an interval."
)
ABSENT = "There is no sparsity limit: none was asked for, or it has no result."

_ESTIMATED, _DENSE = "estimated", "dense_hessian"
_MEASURED = ("one_shot", "fine_tuned")
_BY_ACCURACY = ("one_shot_accuracy", "fine_tuned_accuracy")
_PAIRS = {  # difference: (value, what it is held against)
    "estimated_minus_dense": (_ESTIMATED, _DENSE),
    "estimated_minus_one_shot": (_ESTIMATED, "one_shot"),
    "estimated_minus_fine_tuned": (_ESTIMATED, "fine_tuned"),
}
_LIMITS = (_ESTIMATED, _DENSE, *_MEASURED, *_BY_ACCURACY)
_VALUES = (*_LIMITS, *_PAIRS)
_KEY = ("task", "network", "predictor", "curvature", "tolerance_factor")


def _seed_text(row: object) -> str:
    return f"mean of {row['num_seeds']}" if row["statistic"] == "mean" else str(row["seed"])  # type: ignore[index]


COLUMNS = (
    text("Task", "task"),
    text("Dense network of", "network_label"),
    text("Predictor", "predictor_label"),
    text("Curvature", "curvature"),
    number("Loss tolerance (nats)", "loss_tolerance_nats", nats_text, "cells"),
    Column("Seed", _seed_text, "seed_order", traced_to=""),
    limit("Estimated (%)", _ESTIMATED, "estimated_cells"),
    number("Probe s.e. (points)", "probe_standard_error", percent_text, "estimated_cells"),
    number("Error (points)", "error", percent_text, "estimated_cells"),
    limit("Dense Hessian (%)", _DENSE, "dense_hessian_cells"),
    with_interval("Estimated − dense Hessian", "estimated_minus_dense", difference_text),
    limit("One-shot, measured (%)", "one_shot", "measured_cells"),
    with_interval("Estimated − one-shot", "estimated_minus_one_shot", difference_text),
    limit("Fine-tuned, measured (%)", "fine_tuned", "measured_cells"),
    with_interval("Estimated − fine-tuned", "estimated_minus_fine_tuned", difference_text),
    limit("One-shot within accuracy (%)", "one_shot_accuracy", "measured_cells"),
    limit("Fine-tuned within accuracy (%)", "fine_tuned_accuracy", "measured_cells"),
)
_FRAME = (
    *_KEY,
    "network_label",
    "predictor_label",
    "statistic",
    "seed",
    "seed_order",
    "num_seeds",
    "loss_tolerance_nats",
    *(name for value in _VALUES for name in (value, f"{value}_half_width")),
    *(name for value in _LIMITS for name in (f"{value}_not_reached", f"{value}_num_seeds")),
    "estimated_lower",
    "estimated_upper",
    "probe_standard_error",
    "error",
    "estimated_cells",
    "dense_hessian_cells",
    "measured_cells",
    "cells",
)


def build(results: Results) -> pd.DataFrame:
    """Return one row per network, predictor, tolerance and seed, and after several seeds one row with their mean.

    Limits are sparsities, fractions in [0, 1]. A value that was not computed is NaN. Limits by accuracy do not
    depend on the loss tolerance and are repeated for each.
    """
    per_seed = table(list(_records(results)), _FRAME)
    rows: list[dict[str, object]] = []
    for _, group in per_seed.groupby(list(_KEY), sort=False, dropna=False):
        rows += records(group)
        if len(group) > 1:
            rows.append(_mean_record(group))
    return table(rows, _FRAME).astype({"seed": "Int64"})  # no seed in a mean, and never 0.0 for 0


def _records(results: Results) -> Iterator[dict[str, object]]:
    """Yield one record per network, predictor, curvature, tolerance and seed."""
    limits = with_reached(results, results.limits)
    networks = dict(zip(results.rows["method"], results.rows["label"], strict=True))
    for task in results.tasks:
        for network in ordered(networks, limits.loc[limits["task"] == task, "network"]):
            here = limits[(limits["task"] == task) & (limits["network"] == network)]
            for record in _network_records(here):
                label = networks.get(network, network)
                yield {"task": task, "network": network, "network_label": label, **record}


def _network_records(limits: pd.DataFrame) -> Iterator[dict[str, object]]:
    predicted = limits[limits["source"] != "measured"]
    measured = limits[limits["source"] == "measured"]
    by_loss = measured[~measured["limit"].isin(_BY_ACCURACY)]
    settings = [(limit, kind) for limit in limits_in(predicted) for kind in _curvatures(predicted, limit)]
    factors = sorted({*predicted["tolerance_factor"].dropna(), *by_loss["tolerance_factor"].dropna()}) or [np.nan]
    for predictor, curvature in settings or [("", "")]:
        mine = predicted[(predicted["limit"] == predictor) & (predicted["curvature"] == curvature)]
        for factor in factors:
            for seed in sorted({*mine["seed"], *measured["seed"]}):
                record = _record(_at(mine, seed, factor), _at(by_loss, seed, factor), _at(measured, seed, None))
                names = {"predictor": predictor, "predictor_label": limit_label(predictor), "curvature": curvature}
                yield {**names, "tolerance_factor": factor, "seed": seed, "seed_order": seed, **record}


def _curvatures(limits: pd.DataFrame, limit: str) -> list[str]:
    return sorted(set(limits.loc[limits["limit"] == limit, "curvature"]))


def _at(limits: pd.DataFrame, seed: int, factor: float | None) -> pd.DataFrame:
    same_seed = limits[limits["seed"] == seed]
    return same_seed if factor is None or np.isnan(factor) else same_seed[same_seed["tolerance_factor"] == factor]


def _record(predicted: pd.DataFrame, by_loss: pd.DataFrame, measured: pd.DataFrame) -> dict[str, object]:
    is_exact = predicted["source"] == _DENSE
    estimated, dense = predicted[~is_exact], predicted[is_exact]
    used = pd.concat([by_loss, measured[measured["limit"].isin(_BY_ACCURACY)]])
    found = {_ESTIMATED: estimated, _DENSE: dense}
    found |= {name: used[used["limit"] == name] for name in (*_MEASURED, *_BY_ACCURACY)}
    values = {name: _first(rows, "sparsity_limit") for name, rows in found.items()}
    missed = {name: int(len(rows) > 0 and not rows["is_reached"].iloc[0]) for name, rows in found.items()}
    for name, (left, right) in _PAIRS.items():
        values[name] = np.nan if missed[left] or missed[right] else values[left] - values[right]
    return {
        "statistic": "seed",
        "num_seeds": 1,
        "loss_tolerance_nats": _first(pd.concat([predicted, by_loss]), "loss_tolerance_nats"),
        **values,
        **{f"{name}_not_reached": count for name, count in missed.items()},
        **{f"{name}_num_seeds": int(not np.isnan(values[name])) for name in found},
        "estimated_lower": _first(estimated, "lower"),
        "estimated_upper": _first(estimated, "upper"),
        "probe_standard_error": _first(estimated, "probe_standard_error"),
        "error": _first(estimated, "error"),
        "estimated_cells": cell_names(estimated["cell"]),
        "dense_hessian_cells": cell_names(dense["cell"]),
        "measured_cells": cell_names(used["cell"]),
        "cells": cell_names(pd.concat([estimated["cell"], dense["cell"], used["cell"]])),
    }


def _mean_record(group: pd.DataFrame) -> dict[str, object]:
    record = dict(group.iloc[0])
    for name in _VALUES:
        record |= with_half_width(name, group[name].astype("float64"))
    for name in (f"{value}_{what}" for value in _LIMITS for what in ("not_reached", "num_seeds")):
        record[name] = int(group[name].sum())
    for name, sides in {**{name: (name,) for name in _LIMITS}, **_PAIRS}.items():
        if any(record[f"{side}_not_reached"] for side in sides):  # at the end of the scale nothing is like Student's
            record[f"{name}_half_width"] = np.nan
    for name in ("loss_tolerance_nats", "estimated_lower", "estimated_upper"):
        record[name] = group[name].mean()
    record |= {
        "probe_standard_error": np.nan,
        "error": np.nan,
        "statistic": "mean",
        "seed": None,
        "seed_order": group["seed"].max(),
    }
    record["num_seeds"] = group["seed"].nunique()
    for name in ("estimated_cells", "dense_hessian_cells", "measured_cells", "cells"):
        record[name] = cell_names(pd.Series(" ".join(group[name]).split(), dtype="str"))
    return record


def _first(rows: pd.DataFrame, column: str) -> float:
    return float(rows[column].iloc[0]) if len(rows) else float("nan")
