from typing import Any

import pytest
import torch

from suite.estimate import timing
from suite.estimate.timing import Trial, evaluation_timing, growing, product_timing, step_timing
from suite.network import ModelSpec
from suite.study import Recipe

SPEC = ModelSpec(name="mlp", options={"hidden": [8]}, version=1, input_shape=(6,), num_classes=3)
RECIPE = Recipe(epochs=7, batch_size=32, learning_rate=0.1, schedule="step", milestones=(2, 4), warmup_epochs=1)


def trial(**changes: Any) -> Trial:
    plain: dict[str, Any] = {"is_pixels": False, "input_dtype": torch.float32}
    return Trial(SPEC, RECIPE, **(plain | changes), device="cpu")


class Clock:
    """A machine on which a computation takes what it is told to."""

    def __init__(self, fixed_s: float, per_example_s: float) -> None:
        self.now, self.fixed_s, self.per_example_s = 0.0, fixed_s, per_example_s
        self.calls: list[tuple[int, int]] = []

    def run(self, size: int, repeats: int) -> None:
        self.calls.append((size, repeats))
        self.now += repeats * (self.fixed_s + size * self.per_example_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    made = Clock(*request.param)
    monkeypatch.setattr(timing.time, "monotonic", lambda: made.now)
    return made


@pytest.mark.parametrize("clock", [(0.001, 0.0001)], indirect=True)
def test_a_quick_computation_is_timed_as_it_is(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=3.0)
    assert not found.is_extrapolated
    assert found.seconds == pytest.approx(0.001 + 128 * 0.0001)
    assert found.per_example_s == pytest.approx(found.seconds / 128)


@pytest.mark.parametrize("clock", [(0.0, 0.1)], indirect=True)
def test_a_slow_one_is_extrapolated_within_the_budget(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=5.0)
    assert found.is_extrapolated
    assert 2 <= found.size < 128
    assert found.per_example_s == pytest.approx(0.1)
    assert clock.now <= 5.0 + 0.2  # and the first


@pytest.mark.parametrize("clock", [(0.0, 60.0)], indirect=True)
def test_the_smallest_trial_is_made_in_any_case(clock: Clock) -> None:
    assert growing(clock.run, 128, budget_s=1.0).size == 2
    assert clock.calls == [(2, 1), (2, 1)]


@pytest.mark.parametrize("clock", [(0.3, 0.005)], indirect=True)
def test_what_is_fixed_is_not_extrapolated(clock: Clock) -> None:
    found = growing(clock.run, 2048, budget_s=4.0)  # an optimiser's step over many weights, say
    assert found.is_extrapolated
    assert found.per_example_s * 2048 == pytest.approx(0.3 + 2048 * 0.005)


# VGG-16 on one core, and on a busy one.
@pytest.mark.parametrize("clock", [(0.155, 0.017), (0.3, 0.03)], indirect=True)
def test_a_slow_step_is_tried_in_two_sizes(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=2.0)
    assert found.is_extrapolated
    assert found.per_example_s * 128 == pytest.approx(clock.fixed_s + 128 * clock.per_example_s)
    assert clock.now <= 2.0 + clock.fixed_s + 2 * clock.per_example_s  # and the first


def test_real_steps_evaluations_and_products_are_timed() -> None:
    assert step_timing(trial(), 60.0).size == 32
    assert evaluation_timing(trial(), 160, 60.0).size == 160
    found = product_timing(trial(), "float64", 160, 60.0)
    assert found.size == 160
    assert 0 < found.seconds < 0.5


def test_a_trial_takes_the_steps_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    histories: list[Any] = []
    train = timing.train
    monkeypatch.setattr(timing, "train", lambda *args, **named: histories.append(train(*args, **named)))
    model = trial().model()
    before = [weight.detach().clone() for weight in model.parameters()]
    trial().train(model, 16, 5)
    assert [(each.num_steps, each.num_examples) for each in histories] == [(5, 80)]
    assert not any(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_examples_are_stored_as_the_data_set_stores_them() -> None:
    assert trial(is_pixels=True).split(3).inputs.dtype == torch.uint8
    assert trial(is_pixels=True).split(3).network_inputs().dtype == torch.float32
    assert trial(input_dtype=torch.int64).split(3).inputs.tolist() == [[0] * 6] * 3
    assert trial().split(3).inputs.shape == (3, 6)
