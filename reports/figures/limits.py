"""Measured loss against sparsity, with the predicted limits drawn over it."""

from collections.abc import Callable
from functools import partial

import altair as alt
import numpy as np
import pandas as pd

from reports._format import nats_text
from reports._names import limit_label, limits_in, ordered, source_label
from reports._reached import not_reached_notes, with_reached
from reports._results import Cell, Results
from reports.figures import _theme
from reports.figures._networks import network_title
from reports.figures._palette import MEASURED_COLOURS, PREDICTOR_COLOURS
from reports.figures._sparsity_axis import sparsity_axis, with_kept_fraction

ORDER = 20
TITLE = "Predicted limits over the measured loss"
CAPTION = (
    "Rise of the mean training loss above that of the least pruned point, one line per seed. Horizontal line: the "
    "loss tolerance; where a curve crosses it lies the measured limit, and limits that are not reached stand below the "
    "title. Vertical lines: predicted limits, mean over seeds, wide from Hessian products and thin dashed from the "
    "dense Hessian; the pale band spans the bounds of all seeds. Where limits were searched to a tolerance, the darker "
    "band spans those of all seeds with their errors. Below the tolerance of the loss the vertical scale is linear, "
    "above it logarithmic."
)
ABSENT = "There is nothing to draw: no loss was measured over sparsity (analysis limit), or it has no result."

Axis = Callable[..., alt.X]  # see sparsity_axis
_CURVES = ("one_shot", "fine_tuned")
_MOST_SPARSE_SHOWN = 1e-3  # least kept fraction shown: beyond, every network has lost all it learnt


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return one panel per dense network of the task, or None without a measured curve."""
    here = results.only(task)
    labels = dict(zip(here.rows["method"], here.rows["label"], strict=True))
    panels = []
    for network in ordered(labels, here.limits["network"]):
        mine = with_reached(results, here.limits[here.limits["network"] == network])
        limits = mine[mine["tolerance_factor"] == 1.0]
        curves = _measured_curves(results, mine)
        if not curves.empty:
            by_loss = limits[~limits["limit"].str.endswith("_accuracy")]
            title = network_title(labels.get(network, network), not_reached_notes(by_loss))
            panels.append(_panel(curves, limits).properties(title=title))
    if not panels:
        return None
    stacked = panels[0] if len(panels) == 1 else alt.vconcat(*panels).resolve_scale(color="shared")
    return _theme.themed(stacked, f"{TITLE}, {task}")


def _measured_curves(results: Results, limits: pd.DataFrame) -> pd.DataFrame:
    """Return the rise of the loss at every evaluated sparsity, from all limit cells of one network."""
    seeds = limits.drop_duplicates("cell").set_index("cell")["seed"]
    frames = [_cell_curves(results.cell(str(name)), int(seed)) for name, seed in seeds.items()]
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        return pd.DataFrame()
    curves = with_kept_fraction(pd.concat(frames, ignore_index=True))
    return curves[curves["kept_fraction"] >= _MOST_SPARSE_SHOWN]


def _cell_curves(cell: Cell, seed: int) -> pd.DataFrame:
    dense_loss = _dense_loss(cell)
    frames = []
    for name in _CURVES:
        sparsity, loss = cell.curves.get(f"{name}_sparsity"), cell.curves.get(f"{name}_train_loss")
        if sparsity is None or loss is None or len(sparsity) == 0:
            continue
        frame = pd.DataFrame({"sparsity": sparsity, "loss_rise_nats": loss - dense_loss}).sort_values("sparsity")
        frame = frame[np.isfinite(frame["loss_rise_nats"])]
        frames.append(frame.assign(curve=f"Measured: {limit_label(name)}", seed=seed, cell=cell.name))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _dense_loss(cell: Cell) -> float:
    """Return the loss at the least sparsity that was evaluated without touching the kept weights."""
    sparsity, loss = cell.curves.get("one_shot_sparsity"), cell.curves.get("one_shot_train_loss")
    if sparsity is None or loss is None or len(sparsity) == 0:
        return 0.0
    return float(loss[int(np.argmin(sparsity))])


def _predictions(limits: pd.DataFrame) -> pd.DataFrame:
    """Return mean and outermost bounds over seeds of each predicted limit, by source."""
    predicted = limits[limits["source"] != "measured"]
    records = []
    for limit in limits_in(predicted):
        for (source, curvature), group in predicted[predicted["limit"] == limit].groupby(["source", "curvature"]):
            records.append(
                {
                    "curve": f"Predicted: {limit_label(limit)}",
                    "source": source_label(str(source)),
                    "is_dense": source == "dense_hessian",
                    "curvature": curvature,
                    "sparsity": group["sparsity_limit"].mean(),
                    "kept_least": 1.0 - group["upper"].max(),
                    "kept_most": 1.0 - group["lower"].min(),
                    "kept_least_error": 1.0 - (group["sparsity_limit"] + group["error"]).max(),
                    "kept_most_error": 1.0 - (group["sparsity_limit"] - group["error"]).min(),
                    "error": group["error"].max(),
                    "cells": ", ".join(group["cell"]),
                }
            )
    return with_kept_fraction(pd.DataFrame(records)) if records else pd.DataFrame()


def _panel(curves: pd.DataFrame, limits: pd.DataFrame) -> alt.LayerChart:
    tolerances = limits["loss_tolerance_nats"].dropna()
    tolerance_nats = float(tolerances.mean()) if len(tolerances) else float("nan")
    predictions = _predictions(limits)
    kept = pd.concat([curves["kept_fraction"], *([predictions["kept_fraction"]] if len(predictions) else [])])
    axis = partial(sparsity_axis, kept, from_dense=True)
    y = _loss_axis(curves, tolerance_nats)
    colour = _colours(curves, predictions)
    line, label = _tolerance_layers(tolerance_nats, y)
    layers = [*line, *_prediction_layers(predictions, axis, colour)]
    tooltip = [
        alt.Tooltip("curve:N", title="Curve"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".6~%"),
        alt.Tooltip("loss_rise_nats:Q", title="Rise of the loss (nats)", format=".3~g"),
        alt.Tooltip("seed:Q", title="Seed"),
        alt.Tooltip("cell:N", title="Cell"),
    ]
    base = alt.Chart(curves).encode(x=axis(), y=y, color=colour, detail="seed:N")
    layers += [base.mark_line(strokeWidth=1.6), base.mark_point(filled=True, size=18).encode(tooltip=tooltip), *label]
    return alt.layer(*layers).properties(width=_theme.WIDTH, height=_theme.HEIGHT)


def _loss_axis(curves: pd.DataFrame, tolerance_nats: float) -> alt.Y:
    """Linear up to the tolerance, logarithmic above: the crossing and the collapse are both in view."""
    linear_to = tolerance_nats if tolerance_nats > 0 else 0.01
    lowest = min(float(curves["loss_rise_nats"].min()), 0.0)
    highest = max(float(curves["loss_rise_nats"].max()), linear_to)
    decades = [10.0**power for power in range(-6, 4)]
    ticks = [0.0, *(tick for tick in decades if linear_to < tick <= highest)]
    ticks += [-tick for tick in decades if linear_to < tick <= -lowest]
    scale = alt.Scale(type="symlog", constant=linear_to, domain=[1.1 * lowest, 1.1 * highest], nice=False)
    axis = alt.Axis(values=ticks, format="~g")
    return alt.Y("loss_rise_nats:Q", title="Rise of the training loss (nats)", scale=scale, axis=axis)


def _colours(curves: pd.DataFrame, predictions: pd.DataFrame) -> alt.Color:
    colours = {f"Measured: {limit_label(name)}": colour for name, colour in MEASURED_COLOURS.items()}
    colours |= {f"Predicted: {limit_label(name)}": colour for name, colour in PREDICTOR_COLOURS.items()}
    drawn = [*curves["curve"], *(predictions["curve"] if len(predictions) else [])]
    domain = [name for name in colours if name in drawn]
    domain += sorted(set(drawn) - set(domain))
    spare = "#7b5cc6"
    scale = alt.Scale(domain=domain, range=[colours.get(name, spare) for name in domain])
    return alt.Color("curve:N", title=None, scale=scale, legend=_theme.legend(columns=2), sort=None)


def _tolerance_layers(tolerance_nats: float, y: alt.Y) -> tuple[list[alt.Chart], list[alt.Chart]]:
    """Return the line of the loss tolerance, and its label on a halo, at the end where no curve has come near it."""
    if not tolerance_nats > 0:
        return [], []
    line = pd.DataFrame(
        {"loss_rise_nats": [tolerance_nats], "note": [f"loss tolerance {nats_text(tolerance_nats)} nats"]}
    )
    base = alt.Chart(line).encode(y=y)
    halo = {"stroke": "white", "strokeWidth": 4, "strokeOpacity": 0.85}
    labels = [
        base.mark_text(align="left", baseline="bottom", dx=6, dy=-4, x=0, **look).encode(text="note:N")
        for look in (halo, {})
    ]
    return [base.mark_rule(color="#7a7f87", strokeDash=[6, 4], strokeWidth=1.3)], labels


def _band(predictions: pd.DataFrame, opacity: float, axis: Axis, ends: str, colour: alt.Color) -> list[alt.Chart]:
    """Return a band between the columns kept_most and kept_least of a kind, or nothing where they are not known."""
    most, least = f"kept_most{ends}", f"kept_least{ends}"
    bounded = predictions.dropna(subset=[most, least])
    if bounded.empty:
        return []
    bounded[[most, least]] = bounded[[most, least]].clip(_MOST_SPARSE_SHOWN, 1.0)  # 0 is at infinity
    band = alt.Chart(bounded).mark_rect(opacity=opacity, clip=True)
    return [band.encode(x=axis(field=most), x2=least, color=colour)]


def _prediction_layers(predictions: pd.DataFrame, axis: Axis, colour: alt.Color) -> list[alt.Chart]:
    if predictions.empty:
        return []
    tooltip = [
        alt.Tooltip("curve:N", title="Limit"),
        alt.Tooltip("source:N", title="From"),
        alt.Tooltip("curvature:N", title="Curvature"),
        alt.Tooltip("sparsity:Q", title="Sparsity", format=".4~%"),
        alt.Tooltip("cells:N", title="Cells"),
    ]
    if predictions["error"].notna().any():
        tooltip.insert(-1, alt.Tooltip("error:Q", title="Error, largest of all seeds", format=".2~%"))
    estimated, dense = predictions[~predictions["is_dense"]], predictions[predictions["is_dense"]]
    layers = [
        *_band(estimated, 0.1, axis, "", colour),
        *_band(estimated, 0.3, axis, "_error", colour),
    ]
    wide, thin = {"strokeWidth": 4.5, "opacity": 0.5}, {"strokeWidth": 1.6, "strokeDash": [5, 4], "opacity": 1.0}
    for frame, look in ((estimated, wide), (dense, thin)):
        if len(frame):
            rule = alt.Chart(frame).mark_rule(**look, clip=True)
            layers.append(rule.encode(x=axis(), color=colour, tooltip=tooltip))
    return layers
