import math

import pytest

from suite.limits.tolerance import batch_loss_std, scaled_tolerances


def test_population_standard_deviation():
    assert batch_loss_std([1.0, 2.0, 3.0, 6.0]) == pytest.approx(math.sqrt(3.5))  # not the sample's sqrt(14 / 3)
    assert batch_loss_std([0.25, 0.25]) == 0.0


@pytest.mark.parametrize("losses", [[], [1.0], [[1.0, 2.0]]])
def test_fewer_than_two_batches_are_refused(losses):
    with pytest.raises(ValueError, match="at least 2 batches"):
        batch_loss_std(losses)


def test_losses_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="1 losses are not finite"):
        batch_loss_std([1.0, math.nan])


def test_scaled_tolerances():
    assert scaled_tolerances(0.02) == (0.01, 0.02, 0.04)
