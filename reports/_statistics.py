"""Mean over seeds and how far it can be trusted."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

CONFIDENCE = 0.95
ANYWHERE = (-np.inf, np.inf)
FRACTION = (0.0, 1.0)  # an accuracy, a sparsity
DIFFERENCE = (-1.0, 1.0)  # of two fractions


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds and the half-width of its confidence interval, in the unit of the values.

    `half_width` is NaN where one value, or none, allows no statement about the spread; `num_values` counts the
    values that went in. `bounds` are the least and the largest mean there can be; the interval is cut there.
    """

    mean: float
    half_width: float
    num_values: int
    bounds: tuple[float, float] = ANYWHERE

    @property
    def lower(self) -> float:
        """Lower end of the interval; NaN without one."""
        return float(np.clip(self.mean - self.half_width, *self.bounds))

    @property
    def upper(self) -> float:
        """Upper end of the interval; NaN without one."""
        return float(np.clip(self.mean + self.half_width, *self.bounds))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero; never without an interval."""
        return self.lower > 0.0 or self.upper < 0.0


def mean_interval(
    values: Iterable[float], confidence: float = CONFIDENCE, bounds: tuple[float, float] = ANYWHERE
) -> MeanInterval:
    """Return the mean and the two-sided Student-t interval of independent values, one per seed.

    half_width = t(1 - (1 - confidence)/2; n - 1) * s / sqrt(n), with s the standard deviation of n - 1 degrees of
    freedom. It assumes roughly normal values; with two or three seeds it is wide, and that is the honest width.
    Values that are NaN are not measured and not counted. Cutting it at bounds that the true mean cannot pass costs no
    coverage; a bootstrap of two or three seeds would be far too narrow.

    Args:
        values: one number per seed, any unit.
        confidence: the probability that such an interval holds the true mean, inside (0, 1).
        bounds: the least and the largest value there can be: FRACTION, DIFFERENCE or ANYWHERE.

    Raises:
        ValueError: confidence is not inside (0, 1).

    Source: Student (1908), "The probable error of a mean", Biometrika 6.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} is not a probability inside (0, 1). Did you mean 0.95?")
    measured = np.asarray(list(values), dtype=np.float64)
    measured = measured[~np.isnan(measured)]
    num_values = len(measured)
    if num_values == 0:
        return MeanInterval(float("nan"), float("nan"), 0, bounds)
    if num_values == 1:
        return MeanInterval(float(measured[0]), float("nan"), 1, bounds)
    quantile = float(stdtrit(num_values - 1, 0.5 * (1.0 + confidence)))
    half_width = quantile * float(np.std(measured, ddof=1)) / float(np.sqrt(num_values))
    return MeanInterval(float(np.mean(measured)), half_width, num_values, bounds)


def paired_difference(first: pd.Series, second: pd.Series) -> MeanInterval:
    """Return the mean of first - second, taken seed by seed, and its Student-t interval.

    Two methods share initial weights and the order of the data where they share a seed: what varies between seeds
    falls out of the difference.

    Args:
        first: fractions, by seed.
        second: fractions, by seed; seeds that only one of them has do not count.
    """
    common = first.index.intersection(second.index)
    return mean_interval(first[common] - second[common], bounds=DIFFERENCE)
