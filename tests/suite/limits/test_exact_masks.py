"""The exact limit of the actual masks, against trying every count on the dense matrix with numpy's pseudo-inverse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.limits.exact_masks import exact_masked_limit
from suite.limits.masked_quadratic import damping_of_kept_weights
from suite.limits.removal import MagnitudeOrder

seeds = st.integers(0, 10_000)


def _limit(model, tolerance, guess=30):
    parts = (torch.from_numpy(model.eigenvalues), torch.from_numpy(model.eigenvectors))
    return exact_masked_limit(*parts, model.order, tolerance, guess)


def _losses(model, damping):
    """Return the least loss of every count on the positive part."""
    matrix = (model.eigenvectors * np.maximum(model.eigenvalues, 0.0)) @ model.eigenvectors.T
    weights, losses = model.order.weights, []
    for count in range(model.order.dim + 1):
        removed, kept = model.order.order[:count], model.order.order[count:]
        coupling = matrix[np.ix_(kept, removed)] @ weights[removed]
        block = matrix[np.ix_(kept, kept)] + damping * np.eye(len(kept))
        own = weights[removed] @ matrix[np.ix_(removed, removed)] @ weights[removed]
        losses.append((own - coupling @ np.linalg.pinv(block, hermitian=True) @ coupling) / 2)
    return np.array(losses)


@given(seeds, st.floats(1e-4, 1.0), st.integers(0, 60), st.booleans())
@settings(deadline=None, max_examples=30)
def test_it_is_that_of_trying_every_count_from_any_guess(quadratic_model, seed, tolerance, guess, bends_down):
    model = quadratic_model(seed, lowest=1e-2)
    if bends_down:
        model.eigenvalues[12::3] *= -1.0
    losses = _losses(model, damping_of_kept_weights(model.order, tolerance))
    found = _limit(model, tolerance, guess)
    assert losses[found.num_removed] <= tolerance * (1 + 1e-9)
    assert found.num_removed == 60 or losses[found.num_removed + 1] > tolerance * (1 - 1e-9)
    assert found.lower == found.sparsity_limit == found.num_removed / 60
    assert found.upper == min(60, found.num_removed + 1) / 60


@given(seeds, st.floats(1e-4, 1.0), st.integers(-20, 20))
@settings(deadline=None, max_examples=20)
def test_units_of_loss_and_of_weights_do_not_matter(quadratic_model, seed, tolerance, exponent):
    model, factor = quadratic_model(seed), 2.0**exponent
    count = _limit(model, tolerance).num_removed
    assert _limit(model.scaled(hessian=factor), factor * tolerance).num_removed == count
    assert _limit(model.scaled(weights=factor, hessian=factor**-2), tolerance).num_removed == count


def test_a_flat_loss_and_weights_of_zero_can_lose_everything(quadratic_model):
    flat = quadratic_model(0).scaled(hessian=0.0)
    assert (_limit(flat, 1e-9).sparsity_limit, _limit(flat, 1e-9).upper) == (1.0, 1.0)
    zeros = exact_masked_limit(torch.ones(4), torch.eye(4), MagnitudeOrder.of(np.zeros(4)), 1e-9, 2)
    assert (zeros.sparsity_limit, zeros.upper) == (1.0, 1.0)


def test_a_tolerance_that_is_not_positive_is_refused(quadratic_model):
    with pytest.raises(ValueError, match="loss_tolerance_nats=0"):
        _limit(quadratic_model(0), 0.0)


@pytest.mark.parametrize("tolerance", [1e-8, 1e-12, 1e-15])
def test_a_tolerance_far_below_rounding_still_has_an_answer(quadratic_model, tolerance):
    model = quadratic_model(1, dim=120, num_zero=60).scaled(hessian=100.0)
    model.eigenvalues[60::3] *= -1.0
    assert 0 <= _limit(model, tolerance).num_removed <= 120
