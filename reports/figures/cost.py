"""Accuracy against gradient steps, one panel per sparsity."""

import math

import altair as alt
import pandas as pd

from reports._format import sparsity_text
from reports._names import method_labels
from reports._results import Results
from reports._statistics import FRACTION, mean_interval
from reports.figures import _theme
from reports.figures._accuracy_axis import AccuracyAxis
from reports.figures._palette import method_encodings, sideways

ORDER = 40
TITLE = "Accuracy against cost"
CAPTION = (
    "Test accuracy at the last epoch against all gradient steps paid for it, ancestors included; one panel per "
    "sparsity. Upper left is better; the vertical axis is logarithmic in the error. Marks: mean over seeds, moved a "
    "little sideways so that none hides another; bars: 95% Student-t interval, cut off where it leaves the plot."
)
ABSENT = "There is nothing to draw: no pruned network has a result."

_MOST_PANEL_COLUMNS = 3
_ROOM = 1.8  # beyond the least and the most steps
_SIDEWAYS = 0.03  # of the axis of a panel between two methods


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return the chart of one task, or None without a pruned network whose steps were counted."""
    here = results.only(task)
    rows = here.requested.assign(label=here.requested["method"].map(method_labels(here.rows)))
    rows = rows[(rows["method"] != "dense") & rows["test_accuracy"].notna() & (rows["gradient_steps"] > 0)]
    if rows.empty:
        return None
    means = _means(rows)
    panels = [_panel_title(sparsity) for sparsity in sorted(set(means["sparsity"]))]
    layered = _panel(means, rows)
    num_columns = 2 if len(panels) == 4 else min(_MOST_PANEL_COLUMNS, len(panels))
    width = (_theme.WIDTH - 40 * (num_columns - 1)) // num_columns
    header = alt.Header(title=None, labelFontSize=12, labelFontWeight="bold", labelAnchor="start", labelPadding=6)
    faceted = layered.properties(width=width, height=170).facet(
        facet=alt.Facet("panel:N", sort=panels, header=header), columns=num_columns
    )
    return _theme.themed(faceted, f"{TITLE}, {task}")


def _panel_title(sparsity: float) -> str:
    return f"Sparsity {sparsity_text(sparsity)}"


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    records = []
    for (method, label, _), group in rows.groupby(["method", "label", "sparsity"]):
        removed = float(group["sparsity"].iloc[0])
        interval = mean_interval(group["test_accuracy"], bounds=FRACTION)
        records.append(
            {
                "method": method,
                "label": label,
                "sparsity": removed,
                "panel": _panel_title(removed),
                "gradient_steps": float(group["gradient_steps"].mean()),
                "num_trainings": float(group["num_trainings"].mean()),
                "accuracy": interval.mean,
                "lower": interval.lower,
                "upper": interval.upper,
                "cells": ", ".join(group["cell"]),
            }
        )
    return pd.DataFrame(records)


def _panel(means: pd.DataFrame, rows: pd.DataFrame) -> alt.LayerChart:
    y = AccuracyAxis.covering(rows["test_accuracy"])
    means = means.assign(error=y.error(means["accuracy"]), best=y.error(means["upper"]), worst=y.error(means["lower"]))
    x = _steps_axis(means["gradient_steps"])
    smallest, largest = means["gradient_steps"].min() / _ROOM, means["gradient_steps"].max() * _ROOM
    means["position"] = means["gradient_steps"] * sideways(means["method"], _SIDEWAYS, smallest, largest)
    colour, shape = method_encodings(rows, _theme.legend())
    tooltip = [
        alt.Tooltip("label:N", title="Method"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".6~%"),
        alt.Tooltip("gradient_steps:Q", title="Gradient steps", format=",.0f"),
        alt.Tooltip("num_trainings:Q", title="Trainings", format=".4~"),
        alt.Tooltip("accuracy:Q", title="Test accuracy", format=".2%"),
        alt.Tooltip("cells:N", title="Cells"),
    ]
    spread = alt.Chart().mark_rule(strokeWidth=1.4, opacity=0.7, clip=True)
    points = alt.Chart().mark_point(filled=True, size=75, opacity=1.0)
    return alt.layer(
        spread.encode(x=x, y=alt.Y("best:Q"), y2="worst:Q", color=colour),
        points.encode(x=x, y=y.channel(), color=colour, shape=shape, tooltip=tooltip),
        data=means,
    )


def _steps_axis(steps: pd.Series) -> alt.X:
    smallest, largest = float(steps.min()) / _ROOM, float(steps.max()) * _ROOM
    decades = range(int(math.log10(smallest)) - 1, int(math.log10(largest)) + 2)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    axis = alt.Axis(values=[tick for tick in ticks if smallest <= tick <= largest], format="~s", labelOverlap="greedy")
    scale = alt.Scale(type="log", domain=[smallest, largest], nice=False)
    return alt.X("position:Q", title="Gradient steps", scale=scale, axis=axis)
