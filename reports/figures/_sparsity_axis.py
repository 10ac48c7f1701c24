"""A sparsity axis on which 90, 99 and 99.9 percent are equally far apart.

The position is the logarithm of the fraction kept, reversed; the labels are sparsities.
"""

import altair as alt
import pandas as pd

_KEPT_TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4, 1e-5, 1e-6)


def with_kept_fraction(frame: pd.DataFrame, sparsity: str = "sparsity") -> pd.DataFrame:
    """Return the rows that have a place on the axis, with `kept_fraction` = 1 - sparsity.

    A sparsity of 1 keeps nothing and lies at infinity: its rows are left out.
    """
    placed = frame[frame[sparsity] < 1.0]
    return placed.assign(kept_fraction=1.0 - placed[sparsity])


def sparsity_axis(
    kept_fractions: pd.Series, *, from_dense: bool = False, field: str = "kept_fraction", titled: bool = True
) -> alt.X:
    """Return the x channel over a field of fractions kept.

    Args:
        kept_fractions: everything that is drawn, to choose the ends of the axis.
        from_dense: begin at sparsity 0 even if nothing is drawn there.
        field: name of the fraction kept in the data.
        titled: whether the axis is named; not where a panel below has the same one.
    """
    largest = 1.0 if from_dense else min(1.0, 1.12 * float(kept_fractions.max()))
    smallest = float(kept_fractions.min()) / 1.12
    ticks = [tick for tick in _KEPT_TICKS if smallest <= tick <= largest]
    title = "Sparsity" if titled else None
    axis = alt.Axis(values=ticks, labelExpr="format(1 - datum.value, '.6~%')", labelOverlap="greedy", title=title)
    # Explicit ends in place of "nice", which would round a logarithmic axis to whole decades.
    scale = alt.Scale(type="log", reverse=True, domain=[smallest, largest], nice=False, clamp=False)
    return alt.X(f"{field}:Q", scale=scale, axis=axis)
