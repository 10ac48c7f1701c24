from collections.abc import Callable
from typing import Any

import pytest
import torch

from suite.estimate import timing
from suite.estimate.timing import Trial, evaluation_timing, fastest, growing, product_timing, step_timing
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
        self.now = self.computed = 0.0
        self.fixed_s, self.per_example_s = fixed_s, per_example_s
        self.waits: Callable[[float], float] = lambda _: 1.0  # of what is computed, how long it takes
        self.computes: Callable[[float], float] = lambda _: 1.0  # more than it should
        self.calls: list[tuple[int, int]] = []

    def run(self, size: int, repeats: int) -> None:
        self.calls.append((size, repeats))
        work_s = repeats * (self.fixed_s + size * self.per_example_s) * self.computes(self.now)
        self.computed += work_s
        self.now += work_s * self.waits(self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    made = Clock(*request.param)
    monkeypatch.setattr(timing.time, "monotonic", lambda: made.now)
    for name in ("thread_time", "process_time"):
        monkeypatch.setattr(timing.time, name, lambda: made.computed)
    return made


@pytest.mark.parametrize("clock", [(0.001, 0.0001)], indirect=True)
def test_a_quick_computation_is_timed_as_it_is(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=3.0, device="cuda")
    assert not found.is_extrapolated
    assert found.seconds == pytest.approx(0.001 + 128 * 0.0001)
    assert found.per_example_s == pytest.approx(found.seconds / 128)


@pytest.mark.parametrize("clock", [(0.0, 0.1)], indirect=True)
def test_a_slow_one_is_extrapolated_within_the_budget(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=5.0, device="cuda")
    assert found.is_extrapolated
    assert 2 <= found.size < 128
    assert found.per_example_s == pytest.approx(0.1)
    assert clock.now <= 5.0 + 0.2  # and the first


@pytest.mark.parametrize("clock", [(0.0, 60.0)], indirect=True)
def test_the_smallest_trial_is_made_in_any_case(clock: Clock) -> None:
    assert growing(clock.run, 128, budget_s=1.0, device="cuda").size == 2
    assert clock.calls == [(2, 1), (2, 1)]


@pytest.mark.parametrize("clock", [(0.3, 0.005)], indirect=True)
def test_what_is_fixed_is_not_extrapolated(clock: Clock) -> None:
    found = growing(clock.run, 2048, budget_s=4.0, device="cuda")  # an optimiser's step over many weights, say
    assert found.is_extrapolated
    assert found.per_example_s * 2048 == pytest.approx(0.3 + 2048 * 0.005)


# VGG-16 on one core, and on a busy one.
@pytest.mark.parametrize("clock", [(0.155, 0.017), (0.3, 0.03)], indirect=True)
def test_a_slow_step_is_tried_in_two_sizes(clock: Clock) -> None:
    found = growing(clock.run, 128, budget_s=2.0, device="cuda")
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


@pytest.mark.parametrize("clock", [(0.001, 0.0001)], indirect=True)
def test_processors_are_timed_by_what_they_compute_whatever_others_do(clock: Clock) -> None:
    clock.waits = lambda _: 40.0
    found = growing(clock.run, 128, budget_s=20.0, device="cpu")
    assert found.seconds == pytest.approx(0.001 + 128 * 0.0001)
    assert clock.now <= 20.0 + 2 * 40 * (0.001 + 128 * 0.0001)
    assert growing(clock.run, 128, budget_s=20.0, device="cuda").seconds == pytest.approx(40 * found.seconds)


@pytest.mark.parametrize("clock", [(0.001, 0.0001)], indirect=True)
@pytest.mark.parametrize(("factor", "is_contradictory"), [(2.0, False), (4.0, True)])
def test_trials_that_contradict_one_another_are_told(clock: Clock, factor: float, is_contradictory: bool) -> None:
    clock.computes = lambda now: factor if int(now * 5) % 2 else 1.0
    found = growing(clock.run, 128, budget_s=20.0, device="cpu")
    assert found.spread == pytest.approx(factor)
    assert found.is_contradictory == is_contradictory


@pytest.mark.parametrize("clock", [(0.001, 0.0001)], indirect=True)
@pytest.mark.parametrize("slower", [0.5, 1000.0])
def test_threads_that_wait_for_one_another_are_no_slower_than_one(
    clock: Clock, slower: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    clock.computes = lambda _: slower if count[0] == 2 else 1.0
    found = fastest(clock.run, 128, budget_s=20.0, device="cpu")
    assert found.per_example_s * 128 == pytest.approx(min(slower, 1.0) * (0.001 + 128 * 0.0001))
    assert found.on_one_thread == (slower > 1)
    assert count == [2]
