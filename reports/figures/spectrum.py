"""How many Hessian eigenvalues exceed a given size: SLQ against the dense Hessian.

A density would be one spike at zero: most eigenvalues of a trained network are nearly zero. The fraction of
eigenvalues beyond x, on two logarithmic axes, needs no smoothing bandwidth, shows the bulk, the edge and single
outliers alike, and levels off at one minus the mass of that spike.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports._names import source_label
from reports._results import Cell, Results
from reports._schema import records
from reports.figures import _theme
from reports.figures._decades import POWER_OF_TEN, decades
from reports.figures._networks import stacked
from reports.figures._palette import SOURCE_COLOURS
from suite.curvature.quadrature import SpectralMeasure, atoms, cumulative, measure_of_tridiagonals

ORDER = 30
TITLE = "Hessian spectrum"
CAPTION = (
    "Fraction of the eigenvalues that are larger than x (solid) or smaller than -x (dashed), one line per seed. "
    "SLQ (wide): Gauss quadrature averaged over probes, with steps at its nodes; below the smallest node it resolves "
    "nothing. Dense Hessian (thin): every eigenvalue; its level at the left end is what is not zero."
)
ABSENT = (
    "There is nothing to draw: no Hessian spectrum is in the results. A search of limits to a tolerance keeps none."
)

Array = NDArray[np.float64]
_NUM_GRID_POINTS = 160
_SMALLEST_SHOWN = 1e-7  # of the largest eigenvalue: rounding in 32 bit leaves nothing to see below
_LEAST_MASS = 1e-7  # a few eigenvalues of the largest networks; below lies rounding
_POSITIVE, _NEGATIVE = "larger than x", "smaller than −x"


def chart(results: Results, task: str) -> alt.TopLevelMixin | None:
    """Return one panel per dense network of the task, or None without a measured spectrum."""
    here = results.only(task)
    return stacked(here, here.spectra, lambda mine: _network_tails(results, mine), _panel, f"{TITLE}, {task}")


def chart_of(measure: SpectralMeasure, source: str = "slq") -> alt.TopLevelMixin | None:
    """Return the same picture of one spectrum that lies in no results file, or None where there is no curvature."""
    largest = float(np.abs(measure.pooled().nodes).max())
    if largest == 0.0:
        return None
    grid = largest * np.geomspace(_SMALLEST_SHOWN, 1.0, _NUM_GRID_POINTS)
    tails = _tails({"source": source, "seed": 0, "cell": ""}, measure, grid)
    return None if tails.empty else _theme.themed(_panel(tails), TITLE)


def measure_of(cell: Cell) -> SpectralMeasure | None:
    """Return the spectral measure that a cell holds, exact or sampled; None when it holds neither.

    Probes that failed in their first step are left out; `num_steps` tells how much of a row is valid.
    """
    eigenvalues = cell.arrays.get("eigenvalues")
    if eigenvalues is not None and eigenvalues.size:
        return atoms(eigenvalues.ravel())
    if "diagonal" not in cell.arrays or "off_diagonal" not in cell.arrays:
        return None
    diagonal, off_diagonal = cell.arrays["diagonal"], cell.arrays["off_diagonal"]
    num_steps = cell.arrays.get("num_steps", np.full(len(diagonal), diagonal.shape[1]))
    pairs = [
        (diagonal[probe, :steps], off_diagonal[probe, : steps - 1])
        for probe, steps in enumerate(num_steps)
        if steps > 0
    ]
    return measure_of_tridiagonals(pairs) if pairs else None


def _network_tails(results: Results, spectra: pd.DataFrame) -> pd.DataFrame:
    measured = [(row, measure_of(results.cell(str(row["cell"])))) for row in records(spectra)]
    sizes = {id(measure): float(np.abs(measure.pooled().nodes).max()) for _, measure in measured if measure}
    largest = max(sizes.values(), default=0.0)
    if largest == 0.0:
        return pd.DataFrame()
    grid = largest * np.geomspace(_SMALLEST_SHOWN, 1.0, _NUM_GRID_POINTS)
    tails = [_tails(row, measure, grid) for row, measure in measured if measure]
    return _above_floor(pd.concat(tails, ignore_index=True))


def _above_floor(tails: pd.DataFrame) -> pd.DataFrame:
    """Leave out masses far below one eigenvalue, where there is a dense Hessian to tell how much that is."""
    one_eigenvalue = tails.loc[tails["source"] == source_label("dense_hessian"), "fraction"].min()
    return tails if np.isnan(one_eigenvalue) else tails[tails["fraction"] > 0.3 * one_eigenvalue]


def _tails(row: Mapping[str, Any], measure: SpectralMeasure, grid: Array) -> pd.DataFrame:
    sides = {_POSITIVE: measure, _NEGATIVE: measure.mapped(np.negative)}
    beyond = {side: 1.0 - cumulative(mirrored, grid) for side, mirrored in sides.items()}
    frames = [pd.DataFrame({"size": grid, "fraction": fraction, "side": side}) for side, fraction in beyond.items()]
    both = pd.concat(frames, ignore_index=True)
    both = both[both["fraction"] > _LEAST_MASS]  # nothing is left to draw on a logarithmic axis
    return both.assign(source=source_label(str(row["source"])), seed=row["seed"], cell=row["cell"])


def _panel(tails: pd.DataFrame) -> alt.LayerChart:
    colours = {source_label(source): colour for source, colour in SOURCE_COLOURS.items()}
    domain = [label for label in colours if label in set(tails["source"])]
    colour_scale = alt.Scale(domain=domain, range=[colours[label] for label in domain])
    sides = [side for side in (_POSITIVE, _NEGATIVE) if side in set(tails["side"])]
    encoding = {
        "x": alt.X(
            "size:Q",
            title="x, size of the eigenvalue",
            scale=alt.Scale(type="log", nice=False),
            axis=decades(tails["size"], POWER_OF_TEN),
        ),
        "y": alt.Y(
            "fraction:Q",
            title="Fraction of eigenvalues beyond x",
            scale=alt.Scale(type="log", nice=False),
            axis=decades(tails["fraction"], "format(datum.value, '~%')", "~%"),
        ),
        "color": alt.Color("source:N", title=None, scale=colour_scale, legend=_theme.legend(columns=2), sort=None),
        "strokeDash": alt.StrokeDash(
            "side:N",
            title=None,
            scale=alt.Scale(domain=sides, range=[[1, 0], [4, 3]][: len(sides)]),
            legend=_theme.legend(columns=2, orient="bottom"),  # two above would stand side by side
        ),
        "detail": "seed:N",
    }
    tooltip = [
        alt.Tooltip("source:N", title="From"),
        alt.Tooltip("side:N", title="Eigenvalues"),
        alt.Tooltip("size:Q", title="x", format=".3~g"),
        alt.Tooltip("fraction:Q", title="Fraction", format=".3~%"),
        alt.Tooltip("seed:Q", title="Seed"),
        alt.Tooltip("cell:N", title="Cell"),
    ]
    layers = []
    for source, width, opacity in (("slq", 4.0, 0.45), ("dense_hessian", 1.4, 1.0)):
        mine = tails[tails["source"] == source_label(source)]
        if len(mine):
            line = alt.Chart(mine).mark_line(interpolate="step-after", strokeWidth=width, opacity=opacity)
            layers.append(line.encode(**encoding, tooltip=tooltip))
    return alt.layer(*layers).properties(width=_theme.WIDTH, height=_theme.HEIGHT)
