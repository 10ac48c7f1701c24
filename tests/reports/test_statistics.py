import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports._statistics import DIFFERENCE, FRACTION, mean_interval, paired_difference


@pytest.mark.parametrize("num_values", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_that_of_scipy(num_values, confidence):
    values = np.random.default_rng(3).normal(0.9, 0.02, num_values)
    interval = mean_interval(values, confidence)
    lower, upper = stats.t.interval(confidence, num_values - 1, loc=values.mean(), scale=stats.sem(values))
    assert interval.lower == pytest.approx(lower, rel=1e-10)
    assert interval.upper == pytest.approx(upper, rel=1e-10)
    assert interval.num_values == num_values


def test_two_values_by_hand():
    # t(0.975; 1) = 12.7062..., s = sqrt(2)/2 * |a - b|, so the half-width is 12.7062 * |a - b| / 2
    interval = mean_interval([1.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(12.706204736432095)


def test_one_value_has_a_mean_and_no_interval():
    interval = mean_interval([0.5])
    assert (interval.mean, interval.num_values) == (0.5, 1)
    assert math.isnan(interval.half_width)
    assert math.isnan(interval.lower)


def test_no_value_has_nothing():
    interval = mean_interval([])
    assert interval.num_values == 0
    assert math.isnan(interval.mean)


def test_values_that_were_not_measured_do_not_count():
    assert mean_interval([1.0, math.nan, 3.0]) == mean_interval([1.0, 3.0])
    assert mean_interval([math.nan]).num_values == 0


def test_equal_values_have_an_interval_of_width_zero():
    assert mean_interval([0.25, 0.25, 0.25]).half_width == 0.0


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.1])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match=r"Did you mean 0\.95"):
        mean_interval([1.0, 2.0], confidence)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(11)
    num_trials = 2000
    intervals = [mean_interval(generator.normal(0.7, 0.1, 3)) for _ in range(num_trials)]
    num_covered = sum(interval.lower <= 0.7 <= interval.upper for interval in intervals)
    # four standard errors of a binomial count with probability 0.95
    assert abs(num_covered / num_trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / num_trials)


def test_an_interval_is_cut_at_the_bounds_and_its_half_width_is_not():
    interval = mean_interval([0.9, 1.0], bounds=FRACTION)
    assert (interval.mean, interval.upper) == (0.95, 1.0)
    assert interval.half_width == pytest.approx(0.05 * 12.706204736432095)
    assert interval.lower == pytest.approx(0.95 - interval.half_width)
    assert mean_interval([0.0, 0.1], bounds=FRACTION).lower == 0.0


def test_an_interval_that_is_cut_covers_the_true_mean_as_often():
    generator = np.random.default_rng(5)
    means, whole, cut = 0.95, 0, 0
    for _ in range(1000):
        values = generator.beta(19, 1, 3)  # of mean 0.95, with a long tail
        for bounds in (FRACTION, (-np.inf, np.inf)):
            interval = mean_interval(values, bounds=bounds)
            covers = interval.lower <= means <= interval.upper
            cut, whole = (cut + covers, whole) if bounds == FRACTION else (cut, whole + covers)
    assert cut == whole > 800


def test_a_paired_difference_is_that_of_scipy_over_the_common_seeds():
    generator = np.random.default_rng(8)
    first = pd.Series(generator.normal(0.9, 0.01, 6), index=[0, 1, 2, 3, 4, 9])
    second = pd.Series(generator.normal(0.8, 0.01, 6), index=[4, 3, 2, 1, 0, 7])
    difference = paired_difference(first, second)
    common = [0, 1, 2, 3, 4]
    lower, upper = stats.ttest_rel(first[common], second[common]).confidence_interval(0.95)
    assert (difference.lower, difference.upper) == pytest.approx((lower, upper), rel=1e-9)
    assert (difference.num_values, difference.bounds) == (5, DIFFERENCE)
    assert difference.excludes_zero


def test_one_common_seed_or_none_shows_no_difference():
    first, second = pd.Series([0.9], index=[0]), pd.Series([0.1], index=[0])
    assert not paired_difference(first, second).excludes_zero
    assert paired_difference(first, pd.Series([0.1], index=[1])).num_values == 0
    assert not paired_difference(first, first).excludes_zero
