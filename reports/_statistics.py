"""Mean over seeds and how far it can be trusted."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds and the half-width of its confidence interval, in the unit of the values.

    `half_width` is NaN where one value, or none, allows no statement about the spread; `num_values` counts the
    values that went in.
    """

    mean: float
    half_width: float
    num_values: int

    @property
    def lower(self) -> float:
        """Lower end of the interval; NaN without one."""
        return self.mean - self.half_width

    @property
    def upper(self) -> float:
        """Upper end of the interval; NaN without one."""
        return self.mean + self.half_width


def mean_interval(values: Iterable[float], confidence: float = CONFIDENCE) -> MeanInterval:
    """Return the mean and the two-sided Student-t interval of independent values, one per seed.

    half_width = t(1 - (1 - confidence)/2; n - 1) * s / sqrt(n), with s the standard deviation of n - 1 degrees of
    freedom. It assumes roughly normal values; with two or three seeds it is wide, and that is the honest width.
    Values that are NaN are not measured and not counted.

    Args:
        values: one number per seed, any unit.
        confidence: the probability that such an interval holds the true mean, inside (0, 1).

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
        return MeanInterval(float("nan"), float("nan"), 0)
    if num_values == 1:
        return MeanInterval(float(measured[0]), float("nan"), 1)
    quantile = float(stdtrit(num_values - 1, 0.5 * (1.0 + confidence)))
    half_width = quantile * float(np.std(measured, ddof=1)) / float(np.sqrt(num_values))
    return MeanInterval(float(np.mean(measured)), half_width, num_values)
