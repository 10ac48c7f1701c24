"""Networks that are no better than guessing: comparing them says nothing."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports._results import Results
from reports._statistics import FRACTION, mean_interval

# One network's accuracy on a small test set strays this far from guessing without having learnt anything: a twentieth
# of the way from guessing to perfect, but never more than guessing itself, which is little where classes are many.
_MARGIN = 0.05


def chance_accuracy(results: Results) -> float:
    """Return 1 / number of classes if a cell of the rows states `num_classes` in its configuration, else NaN."""
    for name in results.rows["cell"]:
        for num_classes in _values_of("num_classes", results.cell(name).config):
            if isinstance(num_classes, int) and num_classes > 1:
                return 1.0 / num_classes
    return math.nan


def is_guessing(accuracies: pd.Series, chance: float) -> bool:
    """Return whether networks of several seeds cannot be told from guessing.

    That is where their mean is above it by no more than a small margin, or by no more than the seeds' standard
    deviation, or where its 95% interval reaches down to it and the mean is not far from it: no more than three times
    as good, nor halfway to perfect. Farther up it is no guess that the seeds differ by. The classes are taken to be
    equally frequent: how often the largest one occurs is in no results file.

    Args:
        accuracies: one per seed, fractions; NaN is not measured.
        chance: accuracy of a guess, NaN where it is not known.
    """
    measured = accuracies.dropna()
    if math.isnan(chance) or measured.empty:
        return False
    spread = float(measured.std(ddof=1)) if len(measured) > 1 else 0.0
    margin = min(_MARGIN * (1.0 - chance), chance)
    accuracy = mean_interval(measured, bounds=FRACTION)
    reaches_down = accuracy.lower <= chance and accuracy.mean <= chance + min(2.0 * chance, 0.5 * (1.0 - chance))
    return accuracy.mean <= chance + max(margin, spread) or reaches_down


def classes_text(chance: float) -> str:
    """0.1 -> "with 10 classes"."""
    return f"with {round(1.0 / chance)} classes"


def _values_of(key: str, config: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in config.items():
        if name == key:
            yield value
        elif isinstance(value, Mapping):
            yield from _values_of(key, value)
