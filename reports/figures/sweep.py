"""Accuracy and loss of one network over many sparsities, pruned by magnitude and not trained on."""

import altair as alt
import numpy as np
import pandas as pd

from reports._names import limit_label, limits_in
from reports._reached import not_reached_notes, with_reached
from reports._results import Cell, Results
from reports._schema import records
from reports.figures import _theme
from reports.figures._accuracy_axis import AccuracyAxis
from reports.figures._decades import decades
from reports.figures._networks import stacked
from reports.figures._palette import INK, MEASURED_COLOURS, PREDICTOR_COLOURS
from reports.figures._sparsity_axis import sparsity_axis, with_kept_fraction

ORDER = 25
TITLE = "Accuracy and loss while pruning"
CAPTION = (
    "The dense network pruned by magnitude to one sparsity after another, nothing trained on, one line per seed. "
    "Points were evaluated; they lie closest where the curves bend, and lines only join them. Accuracy is on an axis "
    "that is logarithmic in the error, the loss is the mean cross-entropy. Vertical lines, mean over seeds: solid the "
    "predicted limits, dashed the measured one-shot limit. The evaluated and the interpolated sparsities, with "
    "validation as well, stand in results.h5."
)
ABSENT = "There is nothing to draw: no sweep over sparsities was asked for (analysis sweep), or it has no result."

_SPLITS = {"Train": ("train", "#e69f00"), "Test": ("test", MEASURED_COLOURS["one_shot"])}
_PANEL_HEIGHT = 220
_LEAST_LOSS_NATS = 1e-6  # drawn there: a logarithm has no zero


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return two panels per dense network of the task, or None where none was swept."""
    here = results.only(task)

    def drawn_limits(network: str) -> pd.DataFrame:
        return _drawn(with_reached(results, here.limits[here.limits["network"] == network]))

    def panel(points: pd.DataFrame) -> alt.VConcatChart:
        return _panels(points, _limits(drawn_limits(points["network"].iloc[0])))

    def notes(network: str) -> list[str]:
        return not_reached_notes(drawn_limits(network))

    return stacked(here, here.sweeps, lambda mine: _points(results, mine), panel, f"{TITLE}, {task}", notes)


def _points(results: Results, entries: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluated points of every sweep of one network, a row per split."""
    frames = [
        _cell_points(results.cell(str(entry["cell"]))).assign(
            **{name: entry[name] for name in ("seed", "network", "cell", "num_sparsities", "num_evaluated")}
        )
        for entry in records(entries)
    ]
    return with_kept_fraction(pd.concat(frames, ignore_index=True))


def _cell_points(cell: Cell) -> pd.DataFrame:
    frames = [pd.DataFrame({"sparsity": []})]
    for label, (split, _) in _SPLITS.items():
        names = ("sparsity", "num_kept", "evaluated", f"{split}_accuracy", f"{split}_loss")
        columns = [cell.curves.get(name) for name in names]
        if any(column is None or len(column) != len(columns[0]) for column in columns):  # type: ignore[arg-type]
            continue
        frame = pd.DataFrame(dict(zip(("sparsity", "num_kept", "evaluated", "accuracy", "loss"), columns, strict=True)))
        frame = frame[frame["evaluated"].astype(bool) & np.isfinite(frame["loss"])]
        frames.append(frame.drop(columns="evaluated").assign(split=label))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _drawn(limits: pd.DataFrame) -> pd.DataFrame:
    """Return the predicted limits by products and the measured one-shot limit, at the loss tolerance itself."""
    limits = limits[(limits["tolerance_factor"] == 1.0) & (limits["source"] != "dense_hessian")]
    return limits[limits["limit"].isin([*PREDICTOR_COLOURS, "one_shot"])]


def _limits(wanted: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of each limit."""
    rows = []
    for limit in limits_in(wanted):
        found = wanted[wanted["limit"] == limit]
        is_measured = limit == "one_shot"
        rows.append(
            {
                "line": f"{'Measured' if is_measured else 'Predicted'}: {limit_label(limit)}",
                "colour": INK if is_measured else PREDICTOR_COLOURS[limit],
                "is_measured": is_measured,
                "sparsity": found["sparsity_limit"].mean(),
                "cells": ", ".join(sorted(set(found["cell"]))),
            }
        )
    return with_kept_fraction(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _panels(points: pd.DataFrame, limits: pd.DataFrame) -> alt.VConcatChart:
    accuracy = AccuracyAxis.covering(points["accuracy"])
    points = points.assign(error=accuracy.error(points["accuracy"]), shown=points["loss"].clip(_LEAST_LOSS_NATS))
    loss = alt.Y(
        "shown:Q",
        title="Loss (nats)",
        axis=decades(points["shown"], "format(datum.value, '~g')"),
        scale=alt.Scale(type="log", domain=[points["shown"].min() / 1.15, points["shown"].max() * 1.15], nice=False),
    )
    colour = _colours(points, limits)
    x = sparsity_axis(points["kept_fraction"], from_dense=True)
    untitled = sparsity_axis(
        points["kept_fraction"], from_dense=True, titled=False
    )  # one axis title serves both panels
    upper = _panel(points, limits, untitled, accuracy.channel("Accuracy"), colour)
    lower = _panel(points, limits, x, loss, colour)
    return alt.vconcat(upper, lower, spacing=14)


def _panel(points: pd.DataFrame, limits: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color) -> alt.LayerChart:
    tooltip = [
        alt.Tooltip("split:N", title="Split"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".6~%"),
        alt.Tooltip("num_kept:Q", title="Weights kept", format=","),
        alt.Tooltip("accuracy:Q", title="Accuracy", format=".2%"),
        alt.Tooltip("loss:Q", title="Loss (nats)", format=".4~g"),
        alt.Tooltip("seed:Q", title="Seed"),
        alt.Tooltip("num_evaluated:Q", title="Evaluated sparsities"),
        alt.Tooltip("num_sparsities:Q", title="of", format=","),
        alt.Tooltip("cell:N", title="Cell"),
    ]
    base = alt.Chart(points.rename(columns={"split": "line"}).assign(split=points["split"])).encode(
        x=x, y=y, color=colour, detail="seed:N"
    )
    layers = [
        base.mark_line(strokeWidth=1.6),
        base.mark_point(filled=True, size=12, opacity=0.7).encode(tooltip=tooltip),
    ]
    return alt.layer(*_rules(limits, x, colour), *layers).properties(width=_theme.WIDTH, height=_PANEL_HEIGHT)


def _rules(limits: pd.DataFrame, x: alt.X, colour: alt.Color) -> list[alt.Chart]:
    tooltip = [
        alt.Tooltip("line:N", title="Limit"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".4~%"),
        alt.Tooltip("cells:N", title="Cells"),
    ]
    layers = []
    for is_measured, look in ((False, {"strokeWidth": 3.5, "opacity": 0.5}), (True, {"strokeDash": [5, 4]})):
        frame = limits[limits["is_measured"] == is_measured] if len(limits) else limits
        if len(frame):
            layers.append(alt.Chart(frame).mark_rule(clip=True, **look).encode(x=x, color=colour, tooltip=tooltip))
    return layers


def _colours(points: pd.DataFrame, limits: pd.DataFrame) -> alt.Color:
    colours = {label: colour for label, (_, colour) in _SPLITS.items() if label in set(points["split"])}
    if len(limits):
        colours |= dict(zip(limits["line"], limits["colour"], strict=True))
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("line:N", title=None, scale=scale, legend=_theme.legend(columns=3), sort=None)
