"""What becomes of negative eigenvalues before a limit is computed."""

from typing import Literal, get_args

import numpy as np

from suite.curvature.quadrature import SpectralMeasure

Curvature = Literal["abs", "positive"]


def treated(measure: SpectralMeasure, curvature: Curvature) -> SpectralMeasure:
    """Return the measure with nodes made non-negative: |lambda| for "abs", max(lambda, 0) for "positive".

    At a minimum the two agree; a limit states which one it used.

    Raises:
        ValueError: another treatment.

    Source: "abs" is the choice of Zhang, Zhang, Sun, Liu (2024), NeurIPS.
    """
    if curvature == "abs":
        return measure.mapped(np.abs)
    if curvature == "positive":
        return measure.mapped(lambda nodes: np.maximum(nodes, 0.0))
    raise ValueError(f"No curvature treatment named '{curvature}'. Known: {', '.join(get_args(Curvature))}.")
