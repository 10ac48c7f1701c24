"""The small parts that all sentences of the answer are made of."""

import math
from collections.abc import Sequence

from reports._format import difference_text, fraction_text, percent_text
from reports._statistics import MeanInterval

_NO_BREAK = "\u00a0"


def listed(parts: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def accuracy_text(accuracy: MeanInterval) -> str:
    """Return "97.50 ± 0.31%"; no line breaks between a mean and its interval."""
    return f"{fraction_text(accuracy.mean, accuracy.half_width)}%".replace(" ", _NO_BREAK)


def points_text(drop: MeanInterval, *, signed: bool = False) -> str:
    """Return "0.40 ± 0.31", of a difference in points; signed: "+0.40 ± 0.31"."""
    show = difference_text if signed else percent_text
    return show(drop.mean, drop.half_width).replace(" ", _NO_BREAK)


def seeds_text(intervals: Sequence[MeanInterval]) -> str:
    """Return "3 seeds", or "2 to 3 seeds" where the intervals come from different numbers of them."""
    counts = sorted({interval.num_values for interval in intervals})
    if counts[-1] <= 1:
        return "one seed" if counts[-1] else "no common seed"
    return f"{' to '.join(str(count) for count in sorted({counts[0], counts[-1]}))} seeds"


def have_intervals(intervals: Sequence[MeanInterval]) -> bool:
    """Return whether any of them comes from more than one seed."""
    return any(not math.isnan(interval.half_width) for interval in intervals)
