"""One panel per dense network, one below the other."""

from collections.abc import Callable

import altair as alt
import pandas as pd

from reports._names import ordered
from reports._results import Results
from reports.figures import _theme


def stacked(
    here: Results,
    entries: pd.DataFrame,
    data_of: Callable[[pd.DataFrame], pd.DataFrame],
    panel: Callable[[pd.DataFrame], alt.LayerChart],
    description: str,
) -> alt.TopLevelMixin | None:
    """Return the panels of all networks that have something to draw, or None without one.

    Args:
        here: the results of one task.
        entries: rows of one of its tables, with a column `network`.
        data_of: the entries of one network -> what its panel draws.
        panel: that -> the panel.
        description: of the whole figure, for those who do not see it.
    """
    labels = dict(zip(here.rows["method"], here.rows["label"], strict=True))
    panels = []
    for network in ordered(labels, entries["network"]):
        data = data_of(entries[entries["network"] == network])
        if not data.empty:
            panels.append(panel(data).properties(title=f"Dense network of {labels.get(network, network)}"))
    if not panels:
        return None
    return _theme.themed(panels[0] if len(panels) == 1 else alt.vconcat(*panels), description)
