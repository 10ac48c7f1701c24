import itertools
import math

import numpy as np
import pandas as pd
import pytest

from reports.figures._accuracy_axis import AccuracyAxis
from reports.figures._sparsity_axis import sparsity_axis, with_kept_fraction


def test_the_accuracy_axis_covers_everything_measured():
    accuracies = pd.Series([0.975, 0.1, 0.6])
    axis = AccuracyAxis.covering(accuracies)
    errors = axis.error(accuracies)
    assert errors.tolist() == pytest.approx([0.025, 0.9, 0.4])
    assert axis.least_error < errors.min()
    assert errors.max() < axis.most_error <= 1.0


def test_a_perfect_score_has_a_place_on_the_axis():
    axis = AccuracyAxis.covering(pd.Series([1.0, 0.99, np.nan]))
    placed = axis.error(pd.Series([1.0, 0.99]))
    assert 0.0 < placed[0] < placed[1]
    assert AccuracyAxis.covering(pd.Series([1.0])).least_error > 0.0


@pytest.mark.parametrize(
    "accuracies", [[0.975, 0.1], [0.56, 0.48], [0.999, 0.998], [0.93, 0.93], [0.7634, 0.7601], [1.0, 0.01]]
)
def test_ticks_lie_inside_and_leave_room_for_their_labels(accuracies):
    axis = AccuracyAxis.covering(pd.Series(accuracies))
    ticks = axis.ticks()
    assert len(ticks) >= 2
    assert all(axis.least_error <= tick <= axis.most_error for tick in ticks)
    length = math.log(axis.most_error / axis.least_error)
    assert all(math.log(right / left) > 0.07 * length for left, right in itertools.pairwise(ticks))


def test_a_missing_interval_stays_missing():
    assert AccuracyAxis(0.01, 1.0).error(pd.Series([math.nan])).isna().all()


def test_everything_removed_has_no_place_on_the_sparsity_axis():
    placed = with_kept_fraction(pd.DataFrame({"sparsity": [0.0, 0.95, 1.0]}))
    assert placed["kept_fraction"].tolist() == pytest.approx([1.0, 0.05])


def test_the_sparsity_axis_is_logarithmic_in_what_is_kept_and_reversed():
    channel = sparsity_axis(pd.Series([0.2, 0.01])).to_dict()
    assert channel["scale"]["type"] == "log"
    assert channel["scale"]["reverse"] is True
    least, most = channel["scale"]["domain"]
    assert least < 0.01 < 0.2 < most < 1.0
    assert channel["axis"]["values"] == [0.2, 0.1, 0.05, 0.02, 0.01]
    assert sparsity_axis(pd.Series([0.2]), from_dense=True).to_dict()["scale"]["domain"][1] == 1.0
