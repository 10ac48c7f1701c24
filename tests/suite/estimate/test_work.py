from collections.abc import Callable

import numpy as np
import pytest

from data.hdf5 import sealed_image, write_array
from suite.estimate.work import Guess, Sizes, bytes_per_weight, trained_network_bytes, training_work
from suite.study import Recipe

SIZES = Sizes(160, 40, 50, 72, 2, 83, 4, 32)


@pytest.mark.parametrize(
    ("begin", "stop", "num_steps", "num_epochs"),
    [(0, None, 15, 3), (3, None, 12, 3), (5, None, 10, 2), (0, 3, 3, 1), (0, 5, 5, 1), (0, 99, 15, 3)],
)
def test_steps_and_epochs_by_hand(
    begin: int, stop: int | None, num_steps: int, num_epochs: int, recipe: Callable[..., Recipe]
) -> None:
    found = training_work(recipe(epochs=3), SIZES, start_step=begin, stop_step=stop)  # 5 batches of 32 per epoch
    assert (found.num_steps, found.evaluated) == (num_steps, num_epochs * 90)


def test_a_search_evaluates_nothing(recipe: Callable[..., Recipe]) -> None:
    assert training_work(recipe(epochs=3), SIZES, evaluates=False).evaluated == 0


def test_the_last_batch_of_an_epoch_is_a_step(recipe: Callable[..., Recipe]) -> None:
    assert training_work(recipe(epochs=2, batch_size=100), SIZES).num_steps == 4


def test_guesses_add_end_by_end() -> None:
    assert Guess.total([Guess(1, 2, 3), Guess.exactly(4), Guess(0, 1, 9).times(2)]) == Guess(5, 8, 25)
    assert Guess.total([]) == Guess.exactly(0)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98])
def test_pruned_weights_compress_as_the_rule_says(sparsity: float) -> None:
    draw, num = np.random.default_rng(0), 200_000
    weights = np.where(draw.random(num) < sparsity, 0, draw.standard_normal(num)).astype(np.float32)
    size = len(sealed_image(lambda file: write_array(file, "weights", weights)))
    assert bytes_per_weight(1 - sparsity) * num == pytest.approx(size, rel=0.2)


def test_a_large_network_is_its_weights() -> None:
    large = Sizes(160, 40, 50, 10_000_000, 2, 10_001_000, 4, 32)
    dense, pruned = trained_network_bytes(large, 2), trained_network_bytes(large, 1, num_keep=1_000_000)
    assert dense == pytest.approx(2 * 3.42 * large.num_state, rel=0.01)
    assert 8.5e6 < pruned < 1e7  # 0.85 bytes a weight and 0.6 bits of a mask, as measured on 2 million
