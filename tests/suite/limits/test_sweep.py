from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.limits.sweep import absolute, relative, removed_counts, sweep


def logistic(count, width=25.0):
    return 1.0 / (1.0 + np.exp((count - 850.0) / width))


def swept(function, num_points=1000, max_evaluations=90, tolerance=0.002):
    """Return the sweep of one curve, and the counts at which it was asked for."""
    asked = []

    def evaluate(count):
        asked.append(count)
        return {"accuracy": float(function(count))}

    found = sweep(evaluate, range(num_points), {"accuracy": absolute(tolerance)}, max_evaluations)
    return found, asked


@given(st.integers(1, 2000), st.integers(1, 10**12))
def test_counts_are_those_of_exact_fractions(num_points, dim):
    counts = removed_counts(num_points, dim)
    assert counts[0] == 0
    assert counts.tolist() == [-((-Fraction(i, num_points) * dim) // 1) * 1 for i in range(num_points)]


def test_the_counts_of_the_published_code_are_one_too_many_at_some_sparsities():
    dim, exact = 1_595_000, removed_counts(1000, 1_595_000)
    in_floats = np.array([int(np.ceil(point / 1000 * dim)) for point in range(1000)])
    assert int((in_floats - exact == 1).sum()) == 43
    assert set((in_floats - exact).tolist()) == {0, 1}


def test_with_enough_evaluations_and_no_tolerance_every_point_is_evaluated():
    generator = np.random.default_rng(0)
    noise = generator.random(200)
    found, asked = swept(lambda count: noise[count], 200, 200, 1e-12)
    assert sorted(asked) == list(range(200))
    assert found.evaluated.all()
    assert found.values["accuracy"].tolist() == noise.tolist()
    assert found.is_within_tolerance
    assert found.largest_steps == {"accuracy": 0.0}


@given(st.integers(100, 900), st.floats(4.0, 80.0), st.floats(0.2, 1.0))
def test_a_smooth_collapse_is_known_to_its_tolerance_by_its_estimate(middle, width, height):
    def collapse(count):
        return height / (1.0 + np.exp((count - middle) / width))

    found, asked = swept(collapse)
    error = np.abs(found.values["accuracy"] - collapse(np.arange(1000)))
    assert found.is_within_tolerance
    assert error.max() <= 1.2 * 0.002  # where it bends more between the ends than at either; 1.07 in 1,500 draws
    assert len(asked) == len(set(asked)) == found.num_evaluations == found.evaluated.sum() <= 90


@given(st.integers(1, 999))
def test_a_step_is_followed_to_its_place(place):
    found, asked = swept(lambda count: float(count < place))
    assert found.values["accuracy"].tolist() == [float(count < place) for count in range(1000)]
    assert len(asked) < 40


@given(st.lists(st.integers(0, 1000), min_size=1000, max_size=1000), st.integers(2, 120))
def test_no_monotone_curve_errs_by_more_than_its_largest_step(falls, max_evaluations):
    curve = 1.0 - np.cumsum(falls) / max(1, sum(falls))
    found, asked = swept(lambda count: curve[count], 1000, max_evaluations)
    assert np.abs(found.values["accuracy"] - curve).max() <= found.largest_steps["accuracy"] + 1e-12
    assert len(asked) <= max_evaluations


def test_evaluated_points_are_not_recomputed():
    found, _ = swept(lambda count: logistic(count) / 3.0)
    at = np.flatnonzero(found.evaluated)
    assert found.values["accuracy"][at].tolist() == [float(logistic(count) / 3.0) for count in at]


def test_too_few_evaluations_are_said():
    found, asked = swept(logistic, max_evaluations=30)
    assert len(asked) == 30
    assert not found.is_within_tolerance
    assert found.estimated_errors["accuracy"] > 1.0


def test_counts_that_repeat_are_evaluated_once():
    asked = []
    found = sweep(
        lambda count: (asked.append(count), {"loss": float(count**2)})[1],
        removed_counts(1000, 7).tolist(),
        {"loss": relative(0.01, 1e-3)},
        90,
    )
    assert sorted(asked) == list(range(8))
    assert found.evaluated.all()
    assert found.values["loss"].tolist() == [float(count**2) for count in found.num_removed]


def test_only_curves_with_a_tolerance_are_followed():
    found = sweep(lambda count: {"a": 1.0, "b": logistic(count)}, range(1000), {"a": absolute(0.1)}, 90)
    assert found.num_evaluations == 21
    assert set(found.values) == {"a", "b"}


def test_a_value_that_is_not_finite_ends_in_the_budget():
    found, asked = swept(lambda count: np.nan if count > 400 else 1.0, max_evaluations=60)
    assert len(asked) == 60
    assert not found.is_within_tolerance
    assert np.isnan(found.values["accuracy"][-1])
    assert found.values["accuracy"][0] == 1.0


@pytest.mark.parametrize(("counts", "most"), [([], 5), ([3, 2], 5), ([0, 1], 1)])
def test_what_cannot_be_swept_is_refused(counts, most):
    with pytest.raises(ValueError, match="Expected: at least one count"):
        sweep(lambda count: {"a": float(count)}, counts, {"a": absolute(0.1)}, most)


@pytest.mark.parametrize(("num_points", "dim"), [(0, 5), (5, 0)])
def test_counts_of_nothing_are_refused(num_points, dim):
    with pytest.raises(ValueError, match="at least 1"):
        removed_counts(num_points, dim)
