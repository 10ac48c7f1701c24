"""One panel per dense network, one below the other."""

from collections.abc import Callable, Sequence

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
    notes: Callable[[str], Sequence[str]] | None = None,
) -> alt.TopLevelMixin | None:
    """Return the panels of all networks that have something to draw, or None without one.

    Args:
        here: the results of one task.
        entries: rows of one of its tables, with a column `network`.
        data_of: the entries of one network -> what its panel draws.
        panel: that -> the panel.
        description: of the whole figure, for those who do not see it.
        notes: network -> lines below the title of its panel.
    """
    labels = dict(zip(here.rows["method"], here.rows["label"], strict=True))
    panels = []
    for network in ordered(labels, entries["network"]):
        data = data_of(entries[entries["network"] == network])
        if not data.empty:
            panels.append(
                panel(data).properties(
                    title=network_title(labels.get(network, network), notes(network) if notes else ())
                )
            )
    if not panels:
        return None
    return _theme.themed(panels[0] if len(panels) == 1 else alt.vconcat(*panels), description)


def network_title(label: str, notes: Sequence[str] = ()) -> str | alt.TitleParams:
    """Return the title of a panel, with lines below it where there is something to say."""
    title = f"Dense network of {label}"
    return alt.TitleParams(title, subtitle=list(notes)) if notes else title
