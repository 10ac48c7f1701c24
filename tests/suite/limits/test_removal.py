import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suite.limits.removal import MagnitudeOrder, num_removed
from suite.pruning.masks import keep_top, order_of_removal


def test_smallest_magnitudes_go_first_and_equals_from_the_end():
    order = MagnitudeOrder.of([0.5, -0.1, 0.5, 0.0, 0.1])
    assert order.order.tolist() == [3, 4, 1, 2, 0]
    assert order.removed(2).tolist() == [0.0, 0.0, 0.0, 0.0, 0.1]
    assert order.removed(4).tolist() == [0.0, -0.1, 0.5, 0.0, 0.1]
    assert (order.dim, order.num_zero_weights) == (5, 1)


def test_many_equals_go_from_the_end():
    order = MagnitudeOrder.of(np.tile([2.0, -1.0, 1.0], 500)).order
    small = np.flatnonzero(np.arange(1500) % 3)
    assert order.tolist() == [*small[::-1], *range(1497, -1, -3)]


def test_what_is_left_is_what_every_mask_keeps():
    weights = np.random.default_rng(3).integers(-3, 4, 60).astype(float)  # many equals, zeros among them
    order = MagnitudeOrder.of(weights)
    assert np.array_equal(order.order, order_of_removal(torch.from_numpy(np.abs(weights))).numpy())
    for count in range(61):
        kept = keep_top(torch.from_numpy(np.abs(weights)), 60 - count).numpy()
        assert np.array_equal(order.removed(count), np.where(kept, 0.0, weights))
        assert np.array_equal(np.sort(order.order[:count]), np.flatnonzero(~kept))


def test_radius_by_hand():
    order = MagnitudeOrder.of([3.0, -4.0, 12.0])
    assert [order.radius(count) for count in range(4)] == [0.0, 3.0, 5.0, 13.0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.data())
def test_radius_is_the_length_of_what_is_removed(weights, data):
    order = MagnitudeOrder.of(weights)
    count = data.draw(st.integers(0, order.dim))
    delta = order.removed(count)
    assert order.radius(count) == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    kept = np.delete(order.weights, order.order[:count])
    assert np.count_nonzero(delta) <= count
    assert not kept.size or not count or np.abs(delta).max() <= np.abs(kept).min()


def test_float32_weights_are_summed_in_float64():
    order = MagnitudeOrder.of(np.full(1_000_000, 0.1, dtype=np.float32))
    assert order.radius(1_000_000) == pytest.approx(float(np.float32(0.1)) * 1000.0, rel=1e-11)


def test_a_later_change_of_the_weights_is_not_seen():
    weights = np.array([1.0, 2.0])
    order = MagnitudeOrder.of(weights)
    weights[0] = 9.0
    assert order.removed(1).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("sparsity", "dim", "expected"),
    [
        (0.95, 100, 95),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996
        (0.951, 1000, 951),
        (0.9, 6464, 5818),
        (0.0, 7, 0),
        (1.0, 7, 7),
        (0, 7, 0),
        (1, 7, 7),
        (1e-9, 7, 1),
        (np.float64(0.95), 100, 95),
        (Fraction(1, 3), 9, 3),
    ],
)
def test_counts_are_exact(sparsity, dim, expected):
    assert num_removed(sparsity, dim) == expected


@given(st.integers(0, 1000), st.integers(1, 10**8))
def test_a_decimal_stands_for_its_fraction(thousandths, dim):
    assert num_removed(thousandths / 1000, dim) == math.ceil(Fraction(thousandths, 1000) * dim)


def test_sparsities_outside_are_refused_with_a_repair():
    with pytest.raises(ValueError, match=r"sparsity=95 is not a fraction in \[0, 1\]\. Did you mean 0\.95\?"):
        num_removed(95, 10)
    with pytest.raises(ValueError, match=r"sparsity=-0\.1 is not a fraction in \[0, 1\]\.$"):
        num_removed(-0.1, 10)
    with pytest.raises(ValueError, match="sparsity=nan"):
        MagnitudeOrder.of([1.0]).num_removed(math.nan)


def test_weights_that_make_no_order_are_refused():
    with pytest.raises(ValueError, match="2 of 3 weights are NaN or infinite"):
        MagnitudeOrder.of([1.0, math.nan, math.inf])
    with pytest.raises(ValueError, match=r"weights have shape \(0,\)"):
        MagnitudeOrder.of([])
    with pytest.raises(ValueError, match=r"weights have shape \(2, 2\)"):
        MagnitudeOrder.of(np.ones((2, 2)))


@pytest.mark.parametrize("count", [-1, 4])
def test_counts_out_of_range_are_refused(count):
    order = MagnitudeOrder.of([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="Expected: 0 <= num_removed <= 3"):
        order.radius(count)
    with pytest.raises(ValueError, match="is out of range"):
        order.removed(count)
