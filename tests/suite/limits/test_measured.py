import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.limits.measured import coarse_to_fine


def _threshold(limit, seen):
    def feasible(sparsity):
        seen.append(sparsity)
        return sparsity <= limit, {"loss": 2.0 * sparsity}

    return feasible


@given(st.integers(0, 1000))
def test_monotone_curves_are_solved_exactly(thousandths):
    seen = []
    result = coarse_to_fine(_threshold(thousandths / 1000, seen))
    assert result.sparsity_limit == thousandths / 1000
    assert len(seen) == len(set(seen)) == len(result.curve) <= 34
    assert result.is_monotone


@given(st.integers(1, 5000), st.data())
def test_every_budget_above_the_least_suffices(num_steps, data):
    least = 2 + (num_steps - 1).bit_length()
    step = data.draw(st.integers(0, num_steps))
    budget = data.draw(st.integers(least, least + 60))
    seen = []
    result = coarse_to_fine(_threshold(step / num_steps, seen), 1 / num_steps, budget)
    assert result.sparsity_limit == step / num_steps
    assert len(seen) <= budget


def test_curve_keeps_every_measurement_in_order():
    result = coarse_to_fine(_threshold(0.4321, []))
    sparsities = [point.sparsity for point in result.curve]
    assert sparsities == sorted(sparsities)
    assert (sparsities[0], sparsities[-1]) == (0.0, 1.0)
    assert all(point.values == {"loss": 2.0 * point.sparsity} for point in result.curve)
    assert all(point.feasible == (point.sparsity <= 0.4321) for point in result.curve)
    assert result.sparsity_limit == 0.432
    assert result.resolution == 0.001


def test_the_last_feasible_island_is_taken_and_reported():
    result = coarse_to_fine(lambda sparsity: (sparsity <= 0.3 or 0.6 <= sparsity <= 0.6789, {}))
    assert result.sparsity_limit == 0.678
    assert not result.is_monotone


def test_nothing_feasible_and_everything_feasible():
    assert coarse_to_fine(lambda _: (False, {})).sparsity_limit is None
    assert coarse_to_fine(lambda _: (True, {})).sparsity_limit == 1.0
    assert coarse_to_fine(lambda sparsity: (sparsity == 0.0, {})).sparsity_limit == 0.0


@pytest.mark.parametrize("resolution", [0.0, -0.1, 0.3, 2.0, float("nan")])
def test_resolutions_that_do_not_divide_one_are_refused(resolution):
    with pytest.raises(ValueError, match="does not divide 1"):
        coarse_to_fine(_threshold(0.5, []), resolution)


def test_a_budget_that_cannot_suffice_is_refused_before_any_evaluation():
    seen = []
    with pytest.raises(
        ValueError, match=r"max_evaluations=11 cannot reach a resolution of 0\.001\. Expected: at least 12"
    ):
        coarse_to_fine(_threshold(0.5, seen), 0.001, 11)
    assert not seen
