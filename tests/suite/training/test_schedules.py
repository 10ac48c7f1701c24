import math
from collections.abc import Callable

import pytest

from suite.study import Recipe
from suite.training.schedules import learning_rate, num_steps, steps_per_epoch

Make = Callable[..., Recipe]


def rates(recipe: Recipe, total: int) -> list[float]:
    return [learning_rate(recipe, step, total) for step in range(total)]


@pytest.mark.parametrize(("examples", "batch", "per_epoch"), [(64, 32, 2), (65, 32, 3), (1, 32, 1), (31, 32, 1)])
def test_the_last_batch_may_be_smaller_and_none_is_dropped(
    recipe: Make, examples: int, batch: int, per_epoch: int
) -> None:
    made = recipe(batch_size=batch, epochs=7)
    assert steps_per_epoch(made, examples) == per_epoch
    assert num_steps(made, examples) == 7 * per_epoch


def test_a_constant_rate(recipe: Make) -> None:
    assert rates(recipe(learning_rate=0.3), 5) == [0.3] * 5


def test_a_cosine_goes_from_the_rate_to_zero(recipe: Make) -> None:
    found = rates(recipe(schedule="cosine", learning_rate=0.2), 8)
    assert found[0] == 0.2
    assert found[4] == pytest.approx(0.1, rel=1e-15)
    assert found[2] == pytest.approx(0.2 * 0.5 * (1 + math.sqrt(0.5)), rel=1e-15)
    assert found[7] == pytest.approx(0.2 * math.sin(math.pi / 16) ** 2, rel=1e-12)
    assert all(left + right == pytest.approx(0.2) for left, right in zip(found[1:], found[:0:-1], strict=True))


def test_steps_multiply_at_their_milestones(recipe: Make) -> None:
    made = recipe(epochs=7, schedule="step", milestones=(2, 5), gamma=0.5, learning_rate=0.8)
    assert rates(made, 7) == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_a_warm_up_rises_linearly_and_ends_in_the_schedule(recipe: Make) -> None:
    made = recipe(epochs=3, learning_rate=0.4, warmup_epochs=2)
    assert rates(made, 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    cosine = recipe(epochs=3, schedule="cosine", learning_rate=0.4)
    warm = cosine.model_copy(update={"warmup_epochs": 1})
    assert rates(warm, 6)[0] == pytest.approx(rates(cosine, 6)[0] / 2)
    assert rates(warm, 6)[1:] == rates(cosine, 6)[1:]
