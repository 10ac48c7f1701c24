"""Logarithmic axes with one tick per power of ten."""

import math

import altair as alt
import pandas as pd

# Vega has no superscripts: the exponent is spelt sign by sign.
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_EXPONENT = "round(log(datum.value) / LN10)"
POWER_OF_TEN = f"'10' + ({_EXPONENT} < 0 ? '⁻' : '') + '{_SUPERSCRIPTS}'[abs({_EXPONENT})]"


def decades(values: pd.Series, label: str = POWER_OF_TEN, plain: str = "~g") -> alt.Axis:
    """Return an axis with one tick per power of ten: the minor ticks of a logarithm only grey the plot.

    Where fewer than two powers of ten are drawn, it has ticks at 1, 2 and 5 of each, and where these are too few as
    well, those that Vega chooses.

    Args:
        values: what is drawn, all positive.
        label: a Vega expression, for powers of ten.
        plain: a format, for ticks between them.
    """
    low, high = values.min(), values.max()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if sum(low <= 10.0**power <= high for power in powers) >= 2:
        return alt.Axis(values=[10.0**power for power in powers], labelExpr=label, labelOverlap="greedy")
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    if sum(low <= tick <= high for tick in ticks) >= 2:
        return alt.Axis(values=ticks, format=plain, labelOverlap="greedy")
    return alt.Axis(tickCount=4, format=".3~g", labelOverlap="greedy")
