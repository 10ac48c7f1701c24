"""Charts to files: svg, pdf and png without a browser and without a network."""

import json
import re
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

PNG_SCALE = 2.0  # pixels per unit: sharp on a good screen and at 5 cm width in print


@dataclass(frozen=True)
class Drawing:
    """One chart: its specification for the page, and the files of the same picture."""

    specification: dict[str, Any]
    svg: bytes
    pdf: bytes
    png: bytes


def render(chart: alt.TopLevelMixin) -> Drawing:
    """Draw a chart in all formats.

    Cost: about half a second, most of it the first call's start of vl-convert.
    """
    specification = chart.to_dict()
    svg = _renumbered(vl_convert.vegalite_to_svg(json.dumps(specification)))
    return Drawing(
        specification=specification,
        svg=svg.encode("utf-8"),
        pdf=vl_convert.svg_to_pdf(svg),
        png=vl_convert.svg_to_png(svg, scale=PNG_SCALE),
    )


def _renumbered(svg: str) -> str:
    """Return the same picture with its clips numbered from 0.

    Vega counts them through the life of the process, so that equal charts would give different files.
    """
    numbers: dict[str, int] = {}
    return re.sub(
        r'(id="|url\(#)((?:clip|gradient)_?)(\d+)',
        lambda found: f"{found[1]}{found[2]}{numbers.setdefault(found[2] + found[3], len(numbers))}",
        svg,
    )
