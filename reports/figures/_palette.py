"""One colour and one mark per method, the same in every figure and beside every name in a table.

The colours are those of Okabe and Ito (2008), "Color Universal Design", chosen to be told apart with any common
colour-vision deficiency; the mark tells the methods apart in black and white.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from reports._names import METHOD_ORDER, method_labels, ordered


@dataclass(frozen=True)
class Style:
    """How a method is drawn: an sRGB colour that reads on white and on near-black, and a Vega point shape."""

    colour: str
    shape: str


_STYLES = {
    "dense": Style("#7a7f87", "stroke"),
    "lomp": Style("#0072b2", "circle"),
    "lomp_fine_tuned": Style("#56b4e9", "square"),
    "imp": Style("#d55e00", "triangle-up"),
    "rare_gems": Style("#009e73", "diamond"),
    "smart_ratio": Style("#cc79a7", "cross"),
    "random": Style("#e69f00", "triangle-down"),
}
# For methods added by a file: in the order of their names among the unknown methods of the study.
_SPARE_STYLES = (
    Style("#7b5cc6", "triangle-right"),
    Style("#8c6d31", "triangle-left"),
    Style("#3a8f8f", "M-1,-1L1,1M1,-1L-1,1"),
    Style("#b5435e", "M0,-1L0.6,1L-1,-0.2L1,-0.2L-0.6,1Z"),
)

INK = "#22302a"  # of text; the dark page exchanges it for a light one

# Measured limits keep the colour of the method they are measured with; predictors and sources take no method's.
MEASURED_COLOURS = {"one_shot": _STYLES["lomp"].colour, "fine_tuned": _STYLES["lomp_fine_tuned"].colour}
PREDICTOR_COLOURS = {
    "gaussian_width": "#b5435e",
    "gaussian_width_faithful": "#8c6d31",
    "statistical_dimension": "#7b5cc6",
    "masked_quadratic": "#3a8f8f",
}
SOURCE_COLOURS = {"slq": "#7b5cc6", "dense_hessian": INK}


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """Return the style of each method; methods without one of their own take the spare ones in turn."""
    unknown = sorted(set(methods) - set(_STYLES))
    spare = {method: _SPARE_STYLES[index % len(_SPARE_STYLES)] for index, method in enumerate(unknown)}
    return {method: _STYLES.get(method) or spare[method] for method in methods}


def sideways(methods: pd.Series, fraction_of_axis: float, smallest: float, largest: float) -> pd.Series:
    """Return the factors that move each method's marks a little along a logarithmic axis.

    Marks at the same place would hide each other's intervals. The factors of all methods average to 1, and a method
    keeps the same factor everywhere, so that its curve keeps its shape.

    Args:
        methods: one per mark.
        fraction_of_axis: distance between neighbouring methods; negative on a reversed axis.
        smallest: at one end of the axis, positive.
        largest: at its other end.
    """
    order = ordered(METHOD_ORDER, methods)
    steps = {method: position - (len(order) - 1) / 2 for position, method in enumerate(order)}
    return (largest / smallest) ** (fraction_of_axis * methods.map(steps).astype("float64"))


def method_encodings(rows: pd.DataFrame, legend: alt.Legend | None) -> tuple[alt.Color, alt.Shape]:
    """Return the colour and shape channels over the field `label`, in the order of print, with one legend."""
    labels = method_labels(rows)
    style = styles(list(labels))
    domain = list(labels.values())
    colour_scale = alt.Scale(domain=domain, range=[style[method].colour for method in labels])
    shape_scale = alt.Scale(domain=domain, range=[style[method].shape for method in labels])
    return (
        alt.Color("label:N", title=None, scale=colour_scale, legend=legend, sort=None),
        alt.Shape("label:N", title=None, scale=shape_scale, legend=legend, sort=None),
    )
