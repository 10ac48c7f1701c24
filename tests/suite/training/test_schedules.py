import math
from collections.abc import Callable

import pytest
import torch

from suite.study import Recipe
from suite.training.schedules import lasting, learning_rate, num_steps, steps_per_epoch

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


def rates_of_torch(rate: float, length: int, warmup_steps: int, total: int) -> list[float]:
    """Return the rates of torch's own scheduler, called after every step, as the original LOMP does."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=length)
    (group,) = optimiser.param_groups
    group["lr"] = 0.0 if warmup_steps else rate
    found = []
    for step in range(1, total + 1):
        found.append(group["lr"])
        optimiser.step()
        if step <= warmup_steps:
            group["lr"] = rate * step / warmup_steps
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "warmup_epochs"),
    [
        (200, 391, 5),  # the original's own
        (200, 352, 5),  # of 45,000 examples
        (7, 10, 0),
        (7, 10, 1),
        (7, 10, 3),
        (7, 21, 1),  # the warm-up ends on a zero
        (10, 11, 1),  # the warm-up ends a step behind a zero
        (3, 1, 2),
    ],
)
def test_a_cosine_per_step_is_torch_s_recursion(recipe: Make, epochs: int, per_epoch: int, warmup_epochs: int) -> None:
    made = recipe(schedule="cosine_per_step", epochs=epochs, warmup_epochs=warmup_epochs, learning_rate=0.1)
    total = epochs * per_epoch
    expected = rates_of_torch(0.1, epochs, warmup_epochs * per_epoch, total)
    assert rates(made, total) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_the_original_s_learning_rate_on_50000_examples(recipe: Make) -> None:
    made = recipe(schedule="cosine_per_step", epochs=200, warmup_epochs=5, learning_rate=0.1, batch_size=128)
    total = num_steps(made, 50_000)
    assert total == 78_200
    assert learning_rate(made, 1_802, total) == pytest.approx(0.369, abs=5e-4)
    assert learning_rate(made, 1_802, total) / (0.1 * 1_802 / 1_955) == pytest.approx(4, rel=1e-3)
    assert learning_rate(made, total, total) == 0  # where the next step would be: by coincidence
    behind = [learning_rate(made, step, total) for step in range(2_200, 78_200)]
    assert behind[:-400] == pytest.approx(behind[400:], abs=1e-15)
    assert (min(behind), max(behind)) == (0, 0.1)
    assert learning_rate(made, 352 * 200, 352 * 200) == 0.1  # on 45,000 examples it would end at its top
    assert learning_rate(made, 349 * 200, 349 * 200) == 0  # an odd number of batches: in batches of 129


def test_the_original_s_alexnet_never_leaves_its_rate(recipe: Make) -> None:
    # Its drops at steps 60, 120 and 160 are overwritten by the next step of the warm-up: constant is the same.
    made = recipe(schedule="constant", epochs=200, warmup_epochs=5, learning_rate=0.01, batch_size=128)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[60, 120, 160], gamma=0.5)
    (group,) = optimiser.param_groups
    for step in range(1, 3_000):
        optimiser.step()
        if step <= 1_955:
            group["lr"] = 0.01 * step / 1_955
        scheduler.step()
        if step not in (60, 120, 160):
            # the original's warm-up is one step behind ours
            assert group["lr"] == pytest.approx(learning_rate(made, step - (step <= 1_955), 78_200), rel=1e-12)


@pytest.mark.parametrize(
    ("epochs", "milestones", "warmup_epochs"),
    [
        (100, (30, 60, 80), 2),  # 2.5 to the even one
        (30, (9, 18, 24), 1),
        (5, (2, 3, 4), 0),
        (3, (1, 2), 0),  # 0.9, 1.8, 2.4
        (2, (1,), 0),
        (400, (120, 240, 320), 10),
    ],
)
def test_another_length_has_its_milestones_at_the_same_fractions(
    recipe: Make, epochs: int, milestones: tuple[int, ...], warmup_epochs: int
) -> None:
    made = recipe(epochs=200, schedule="step", milestones=(60, 120, 160), gamma=0.5, warmup_epochs=5)
    expected = {"epochs": epochs, "milestones": milestones, "warmup_epochs": warmup_epochs}
    assert lasting(made, epochs) == made.model_copy(update=expected)


def test_steps_without_room_become_a_cosine(recipe: Make) -> None:
    made = recipe(epochs=200, schedule="step", milestones=(60, 120), warmup_epochs=5)
    assert lasting(made, 1) == recipe(epochs=1, schedule="cosine")


def test_the_last_milestone_stays_within_another_length(recipe: Make) -> None:
    made = recipe(epochs=200, schedule="step", milestones=(60, 180, 199))
    assert lasting(made, 4).milestones == (1, 3)


def test_as_many_epochs_are_the_recipe_itself(recipe: Make) -> None:
    made = recipe(epochs=200, schedule="step", milestones=(60, 300), warmup_epochs=5)
    assert lasting(made, 200) is made


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_other_schedules_keep_their_shape(recipe: Make, schedule: str) -> None:
    made = recipe(epochs=200, schedule=schedule, warmup_epochs=10, l1=1e-4)
    assert lasting(made, 20) == recipe(epochs=20, schedule=schedule, warmup_epochs=1, l1=1e-4)
