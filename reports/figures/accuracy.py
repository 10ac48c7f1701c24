"""Accuracy against sparsity, one line per method."""

import altair as alt
import pandas as pd

from reports._guessing import chance_accuracy
from reports._names import method_labels
from reports._results import Results
from reports._statistics import FRACTION, mean_interval
from reports.figures import _theme
from reports.figures._accuracy_axis import AccuracyAxis
from reports.figures._palette import method_encodings, sideways
from reports.figures._sparsity_axis import sparsity_axis, with_kept_fraction

ORDER = 10
TITLE = "Accuracy against sparsity"
CAPTION = (
    "Test accuracy at the last epoch, on an axis that is logarithmic in the error. Large marks: mean over seeds at the "
    "sparsities asked for, moved a little sideways so that none hides another; bars: 95% Student-t interval, cut off "
    "where it leaves the plot. Small marks: intermediate rounds of iterative pruning. Dashed: the dense network that a "
    "method is held against. Dotted: guessing, where the number of classes is known."
)
ABSENT = "There is nothing to draw: no pruned network has a result."

_GROUP = ["method", "label", "sparsity", "requested"]
_NEUTRAL = "#7a7f87"
_SIDEWAYS = 0.008  # of the axis between two methods, which runs backwards


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return the chart of one task, or None without a pruned network."""
    here = results.only(task)
    labels = method_labels(here.rows)
    rows = with_kept_fraction(here.rows.assign(label=here.rows["method"].map(labels)))
    rows = rows[rows["test_accuracy"].notna()]
    pruned = rows[rows["method"] != "dense"]
    if pruned.empty:
        return None
    x = sparsity_axis(pruned["kept_fraction"])
    y = AccuracyAxis.covering(pd.concat([rows["test_accuracy"], rows["dense_test_accuracy"]]))
    colour, shape = method_encodings(pruned, _theme.legend())
    layers = [*_references(pruned, y, colour), *_chance(here, y), *_method_layers(pruned, x, y, colour, shape)]
    layered = alt.layer(*layers).properties(width=_theme.WIDTH, height=_theme.HEIGHT)
    return _theme.themed(layered, f"{TITLE}, {task}")


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    records = []
    for (method, label, sparsity, requested), group in rows.groupby(_GROUP):
        interval = mean_interval(group["test_accuracy"], bounds=FRACTION)
        records.append(
            {
                "method": method,
                "label": label,
                "sparsity": sparsity,
                "requested": requested,
                "accuracy": interval.mean,
                "lower": interval.lower,
                "upper": interval.upper,
                "num_kept": ", ".join(f"{count:,}" for count in sorted(set(group["num_kept"]))),
                "seeds": interval.num_values,
                "cells": ", ".join(group["cell"]),
            }
        )
    return with_kept_fraction(pd.DataFrame(records))


def _method_layers(
    pruned: pd.DataFrame, x: alt.X, y: AccuracyAxis, colour: alt.Color, shape: alt.Shape
) -> list[alt.Chart]:
    means = _means(pruned)
    kept = means["kept_fraction"]
    means["kept_fraction"] = kept * sideways(means["method"], -_SIDEWAYS, kept.min(), kept.max())
    means = means.assign(error=y.error(means["accuracy"]), best=y.error(means["upper"]), worst=y.error(means["lower"]))
    asked = means["requested"]
    line = alt.Chart(means).mark_line(strokeWidth=1.8, clip=True)
    layers = [line.encode(x=x, y=y.channel(), color=colour)]
    for frame, size in ((means[~asked], 26), (means[asked], 75)):
        if len(frame):
            points = alt.Chart(frame).mark_point(filled=True, size=size, opacity=1.0)
            layers.append(points.encode(x=x, y=y.channel(), color=colour, shape=shape, tooltip=_tooltip()))
    spread = means[asked & means["lower"].notna()]
    if len(spread):
        bars = alt.Chart(spread).mark_rule(strokeWidth=1.4, opacity=0.7, clip=True)
        layers.insert(0, bars.encode(x=x, y=alt.Y("best:Q"), y2="worst:Q", color=colour))
    return layers


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="Method"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".6~%"),
        alt.Tooltip("num_kept:N", title="Weights kept"),
        alt.Tooltip("accuracy:Q", title="Test accuracy", format=".2%"),
        alt.Tooltip("lower:Q", title="95% interval from", format=".2%"),
        alt.Tooltip("upper:Q", title="to", format=".2%"),
        alt.Tooltip("seeds:Q", title="Seeds"),
        alt.Tooltip("cells:N", title="Cells"),
    ]


def _references(pruned: pd.DataFrame, y: AccuracyAxis, colour: alt.Color) -> list[alt.Chart]:
    """Return one neutral dashed line if all methods share their dense networks, else one line per method."""
    known = pruned[pruned["dense_test_accuracy"].notna()]
    accuracies = known.groupby(["label", "seed"])["dense_test_accuracy"].mean().groupby("label").mean()
    if accuracies.empty:
        return []
    dense = pd.DataFrame({"label": accuracies.index, "error": y.error(accuracies).to_numpy(), "note": "dense"})
    style = {"strokeDash": [6, 4], "strokeWidth": 1.3}
    if dense["error"].round(9).nunique() > 1:
        return [alt.Chart(dense).mark_rule(**style, opacity=0.8).encode(y=y.channel(), color=colour)]
    base = alt.Chart(dense[:1]).encode(y=y.channel())
    note = base.mark_text(align="right", baseline="bottom", dx=-2, dy=-2, x="width").encode(text="note:N")
    return [base.mark_rule(**style, color=_NEUTRAL), note]


def _chance(results: Results, y: AccuracyAxis) -> list[alt.Chart]:
    chance = chance_accuracy(results)
    if not 1.0 - chance <= y.most_error:  # NaN: not known
        return []
    base = alt.Chart(pd.DataFrame({"error": [1.0 - chance], "note": ["guessing"]})).encode(y=y.channel())
    note = base.mark_text(align="left", baseline="bottom", dx=2, dy=-2, x=0).encode(text="note:N")
    return [base.mark_rule(strokeDash=[1, 4], color=_NEUTRAL), note]
