"""The largest count of removed weights that is still feasible, with few evaluations: each may be a linear solve."""

import math
from collections.abc import Callable

_FIRST_STRIDE = 4  # in units of the width; the published limits of one network differ by 0.003 to 0.03


def bracket_count(excess: Callable[[int], float], start: int, lowest: int, highest: int, width: int) -> tuple[int, int]:
    """Bracket the largest count that is feasible: by doubling strides from a guess, then by interpolation.

    Args:
        excess: count -> how far it is above what is allowed; not positive: feasible. Feasible counts lie below all
            others.
        start: the guess.
        lowest: known to be feasible.
        highest: the largest count.
        width: of the bracket at the end, at least 1; the first stride is four times as long.

    Returns:
        A feasible count, and one above it that is not (or highest + 1), at most width apart.

    Cost: about 5 calls from a guess within ten widths. Every third count between the ends of the bracket is its middle,
        so that no shape of the excess takes more than three times as many as halving.
    """
    below, above, stride, num_between = lowest, highest + 1, _FIRST_STRIDE * width, 0
    values = {lowest: -math.inf, highest + 1: math.inf}
    count = min(max(start, lowest + 1), highest)
    while below < highest and (above > highest or above - below > width):
        values[count] = excess(count)
        below, above = (count, above) if values[count] <= 0.0 else (below, count)
        if above > highest or (below == lowest and above - lowest > stride):
            count = min(below + stride, highest) if above > highest else above - stride
            stride *= 2
        else:
            num_between += 1
            fraction = 0.5 if num_between % 3 == 0 else _zero_crossing(values[below], values[above])
            nearby = min(max(below + fraction * (above - below), below + width), above - width)
            count = min(max(round(nearby), below + 1), above - 1)
    return below, above


def _zero_crossing(first: float, second: float) -> float:
    """Return where the line from first <= 0 to second > 0 crosses zero, as a fraction of the way."""
    return first / (first - second) if math.isfinite(first) and math.isfinite(second) else 0.5
