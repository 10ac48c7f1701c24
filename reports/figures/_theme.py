"""The look that all figures share. Sizes suit a figure of one text column; the page widens it."""

from typing import Any

import altair as alt

from reports.figures._palette import INK

# vl-convert brings no fonts of ours along: these are on nearly every machine, and metrics hardly differ.
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
# The page looks for these four values to exchange them on a dark screen.
_SOFT, _GRID, _BACKGROUND = "#5b6660", "#e4e7e2", "#ffffff"

WIDTH = 520
HEIGHT = 300

_CONFIG: dict[str, Any] = {
    "background": _BACKGROUND,
    "font": _FONT,
    "padding": 8,
    "view": {"stroke": None},
    "axis": {
        "domainColor": _SOFT,
        "gridColor": _GRID,
        "labelColor": _SOFT,
        "labelFontSize": 11,
        "labelPadding": 5,
        "tickColor": _SOFT,
        "tickSize": 4,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
    },
    "axisX": {"grid": False, "labelFlush": False},
    "axisY": {"domain": False, "ticks": False},
    "header": {"labelColor": INK, "titleColor": INK},
    "legend": {
        "columns": 3,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 260,
        "orient": "top",
        "symbolSize": 80,
        "symbolStrokeWidth": 2,
        "title": None,
    },
    "text": {"color": _SOFT, "fontSize": 11},
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 13,
        "fontWeight": "bold",
        "subtitleColor": _SOFT,
        "subtitleFontSize": 12,
    },
}


def themed(chart: alt.TopLevelMixin, description: str) -> alt.TopLevelMixin:
    """Return the chart with the shared look and a description for readers who cannot see it."""
    return chart.properties(description=description).configure(**_CONFIG)


def legend(columns: int = 3, orient: str = "top") -> alt.Legend:
    """Return a legend above or below the plot, where it costs no width on a narrow screen."""
    # Layers differ in opacity; without its own, a legend takes the palest.
    return alt.Legend(title=None, orient=orient, columns=columns, symbolOpacity=1.0)
