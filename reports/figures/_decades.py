"""Logarithmic axes with one tick per power of ten."""

import math

import altair as alt
import pandas as pd

# Vega has no superscripts: the exponent is spelt sign by sign.
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_EXPONENT = "round(log(datum.value) / LN10)"
POWER_OF_TEN = f"'10' + ({_EXPONENT} < 0 ? '⁻' : '') + '{_SUPERSCRIPTS}'[abs({_EXPONENT})]"


def decades(values: pd.Series, label: str = POWER_OF_TEN) -> alt.Axis:
    """Return an axis with one tick per power of ten: the minor ticks of a logarithm only grey the plot.

    Args:
        values: what is drawn, all positive.
        label: a Vega expression.
    """
    first, last = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    return alt.Axis(values=[10.0**power for power in range(first, last + 1)], labelExpr=label, labelOverlap="greedy")
