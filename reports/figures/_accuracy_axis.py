"""An accuracy axis that is logarithmic in the error, so that 97 and 98 percent are told apart beside a collapse.

The position is the logarithm of 1 - accuracy, reversed; the labels are accuracies.
"""

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

# Error rates that make good labels, best first; as many are taken as have room.
_ERROR_TICKS = (
    *(0.5, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4),
    *(0.2, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.15, 0.25, 0.35, 0.45, 0.03, 0.04, 0.025, 0.08, 0.07, 0.06),
)
_MARGIN = 0.06  # of the length of the axis, at either end
_LEAST_TICK_DISTANCE = 0.075  # of the length of the axis


@dataclass(frozen=True)
class AccuracyAxis:
    """Ends of the axis, as error rates.

    Attributes:
        least_error: at the upper end, positive; smaller errors, a perfect score among them, are drawn there.
        most_error: at the lower end, at most 1.
    """

    least_error: float
    most_error: float

    @classmethod
    def covering(cls, accuracies: pd.Series) -> "AccuracyAxis":
        """Return the axis over measured accuracies.

        It is to be made from measured values, not from intervals: two seeds can have an interval wider than any axis.
        """
        errors = 1.0 - accuracies.dropna()
        positive = errors[errors > 0.0]
        least = float(positive.min()) if len(positive) else 1e-3
        if len(positive) < len(errors):
            least /= 2.0  # room for a perfect score above the best imperfect one
        most = max(float(errors.max()), least)
        margin = max((most / least) ** _MARGIN * 1.02, 1.1)  # noise must not fill the whole axis
        return cls(least / margin, min(1.0, most * margin))

    def error(self, accuracy: pd.Series) -> pd.Series:
        """Return the error rates, moved to the upper end where they are smaller; NaN stays NaN."""
        return (1.0 - accuracy).clip(lower=self.least_error)

    def channel(self, title: str = "Test accuracy") -> alt.Y:
        """Return the y channel over the field `error`."""
        axis = alt.Axis(values=self.ticks(), labelExpr="format(1 - datum.value, '.6~%')")
        scale = alt.Scale(type="log", reverse=True, domain=[self.least_error, self.most_error], nice=False)
        return alt.Y("error:Q", title=title, axis=axis, scale=scale)

    def ticks(self) -> list[float]:
        """Return error rates inside the axis, none closer to another than leaves room for its label."""
        length = math.log(self.most_error / self.least_error)
        chosen: list[float] = []
        for tick in (*_ERROR_TICKS, *self._round_errors()):
            if not self.least_error <= tick <= self.most_error:
                continue
            if all(abs(math.log(tick / other)) > _LEAST_TICK_DISTANCE * length for other in chosen):
                chosen.append(tick)
        return sorted(chosen)

    def _round_errors(self) -> list[float]:
        """Return multiples of a power of ten that is a third of the axis or less: a narrow axis has no other tick."""
        step = 10.0 ** math.floor(math.log10((self.most_error - self.least_error) / 3.0))
        first, last = math.ceil(self.least_error / step), math.floor(self.most_error / step)
        every_fifth_first = sorted(range(first, last + 1), key=lambda multiple: (multiple % 5 != 0, multiple))
        return [multiple * step for multiple in every_fifth_first]
