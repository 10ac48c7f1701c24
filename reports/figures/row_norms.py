"""L1 norms of Hessian rows against the magnitude percentile of their weights."""

import math

import altair as alt
import numpy as np
import pandas as pd

from reports._results import Results
from reports._schema import records
from reports.figures import _theme
from reports.figures._decades import decades
from reports.figures._networks import stacked

ORDER = 35
TITLE = "Hessian rows by weight magnitude"
CAPTION = (
    "L1 norm of one row of the Hessian per percentile of |w|, one mark per row and seed, on a logarithmic axis. It "
    "bounds how much moving that weight can change the gradient. Dashes on the bottom line are rows of exactly zero: "
    "weights that the loss does not see."
)
ABSENT = "There is nothing to draw: no rows of a Hessian were asked for (analysis row_norms), or they have no result."

_COLOUR = "#7b5cc6"


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return one panel per dense network of the task, or None where no row was measured."""
    here = results.only(task)
    return stacked(here, here.row_norms, lambda mine: _rows(results, mine), _panel, f"{TITLE}, {task}")


def _rows(results: Results, entries: pd.DataFrame) -> pd.DataFrame:
    frames = []
    for entry in records(entries):
        arrays = results.cell(str(entry["cell"])).arrays
        norms, magnitudes = arrays.get("row_l1_norm"), arrays.get("row_magnitude")
        if norms is None or magnitudes is None or len(norms) != len(magnitudes) or not len(norms):
            continue
        percentile = 100.0 * (np.arange(len(norms)) + 0.5) / len(norms)
        frame = pd.DataFrame({"percentile": percentile, "l1_norm": norms, "magnitude": magnitudes})
        frames.append(frame[np.isfinite(frame["l1_norm"])].assign(seed=entry["seed"], cell=entry["cell"]))
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"l1_norm": []})
    positive = found["l1_norm"][found["l1_norm"] > 0.0]
    if positive.empty:
        return pd.DataFrame()
    floor = 10.0 ** np.floor(np.log10(positive.min()))
    return found.assign(is_zero=found["l1_norm"] == 0.0, shown=found["l1_norm"].clip(lower=floor))


def _panel(rows: pd.DataFrame) -> alt.LayerChart:
    ends = [math.floor(math.log10(rows["shown"].min())), math.ceil(math.log10(rows["shown"].max()))]
    scale = alt.Scale(type="log", domain=[10.0**power for power in ends], nice=False)
    encoding = {
        "x": alt.X("percentile:Q", title="Percentile of |w|", scale=alt.Scale(domain=[0, 100])),
        "y": alt.Y(
            "shown:Q", title="L1 norm of the row (nats per squared weight)", scale=scale, axis=decades(rows["shown"])
        ),
        "tooltip": [
            alt.Tooltip("percentile:Q", title="Percentile", format=".3~g"),
            alt.Tooltip("magnitude:Q", title="|w|", format=".3~g"),
            alt.Tooltip("l1_norm:Q", title="L1 norm", format=".3~g"),
            alt.Tooltip("seed:Q", title="Seed"),
            alt.Tooltip("cell:N", title="Cell"),
        ],
    }
    seen, unseen = rows[~rows["is_zero"]], rows[rows["is_zero"]]
    layers = [alt.Chart(seen).mark_point(filled=True, size=22, opacity=0.6, color=_COLOUR).encode(**encoding)]
    if len(unseen):
        layers.append(alt.Chart(unseen).mark_tick(color=_COLOUR, thickness=1.4, size=12).encode(**encoding))
    return alt.layer(*layers).properties(width=_theme.WIDTH, height=_theme.HEIGHT)
