import math

import pandas as pd
import pytest

from reports._guessing import is_guessing


@pytest.mark.parametrize(
    ("accuracies", "num_classes", "guesses"),
    [
        ([0.102], 10, True),
        ([0.13], 10, True),  # of 360 digits, a network that guesses has 0.13 now and then
        ([0.16], 10, False),
        ([0.04], 10, True),
        ([0.52], 2, True),
        ([0.56], 2, False),
        ([0.009], 200, True),
        ([0.03], 200, False),  # six times as good as guessing
        ([0.1, 0.2], 10, True),  # above guessing by no more than the seeds differ
        ([0.17, 0.21], 10, True),  # and Student's interval reaches down to guessing
        ([0.17, 0.175], 10, False),  # it does not
        ([0.98, 0.8], 10, False),  # it does, but far above guessing the seeds differ by something else
        ([0.2, 0.28], 200, False),
        ([0.7, 0.78], 2, True),
        ([0.76, 0.84], 2, False),
        ([0.98, 0.97, 0.1], 10, False),
        ([math.nan, 0.1], 10, True),
        ([math.nan], 10, False),
        ([], 10, False),
    ],
)
def test_what_counts_as_guessing(accuracies, num_classes, guesses):
    assert is_guessing(pd.Series(accuracies, dtype="float64"), 1.0 / num_classes) == guesses


def test_without_a_number_of_classes_nothing_is_guessing():
    assert not is_guessing(pd.Series([0.1]), math.nan)
