import sys
from typing import Any

import pytest
import torch
from torch import nn

from suite.curvature.allocation import live_bytes
from suite.estimate.memory import (
    Memory,
    evaluation_growth,
    fixed_bytes,
    host_bytes,
    process_bytes,
    training_bytes,
    training_growth,
)
from suite.estimate.timing import Trial
from suite.estimate.work import Sizes
from suite.network import ModelSpec
from suite.problem import evaluate
from suite.study import Recipe
from suite.training.loop import train

NUM_FEATURES, NUM_CLASSES, NUM_EXAMPLES = 5000, 10, 300
NUM_STATE = NUM_FEATURES * NUM_CLASSES + NUM_CLASSES


class Linear:
    """A module of a user's with one layer."""

    @staticmethod
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(NUM_FEATURES, NUM_CLASSES))


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    module: Any = type(sys)("one_layer_for_memory")
    module.build, module.VERSION = Linear.build, 1
    monkeypatch.setitem(sys.modules, "one_layer_for_memory", module)
    return ModelSpec(name="one_layer_for_memory:build", input_shape=(NUM_FEATURES,), num_classes=NUM_CLASSES)


def a_trial(spec: ModelSpec, **changes: Any) -> Trial:
    recipe = Recipe(epochs=1, batch_size=100, learning_rate=0.1, **changes)
    return Trial(spec, recipe, is_pixels=False, input_dtype=torch.float32, device="cpu")


def peak_of(trial: Trial) -> int:
    return training_bytes(
        training_growth(trial), evaluation_growth(trial), trial.evaluation_batch(), trial.recipe, SIZES
    )


SIZES = Sizes(NUM_EXAMPLES, 0, 0, NUM_STATE - NUM_CLASSES, 1, NUM_STATE, 2, 4 * NUM_FEATURES + 8)


@pytest.mark.parametrize(("momentum", "copies"), [(0.0, 1), (0.9, 2), (None, 3)])
def test_one_linear_layer_in_closed_form(linear: ModelSpec, momentum: float | None, copies: int) -> None:
    found = peak_of(a_trial(linear, **({"optimiser": "adam"} if momentum is None else {"momentum": momentum})))
    data, weights, batch = NUM_EXAMPLES * (4 * NUM_FEATURES + 8), 4 * NUM_STATE, 4 * 100 * NUM_FEATURES
    # gradients and momentum; a batch is let go only when the next is drawn
    expected = data + weights + copies * weights + 2 * batch
    logits = 4 * 100 * NUM_CLASSES
    assert expected <= found <= expected + 4 * logits


def test_it_is_what_torch_allocates_for_a_whole_training(linear: ModelSpec) -> None:
    trial = a_trial(linear, momentum=0.9)
    model, split = trial.model(), trial.split(NUM_EXAMPLES)

    def real() -> None:
        train(model, {"train": split}, trial.recipe, 0)
        evaluate(model, split)

    peak = fixed_bytes(SIZES) + max(live_bytes(real, torch.device("cpu")))
    assert peak_of(trial) == pytest.approx(peak, rel=0.02)


def test_weights_and_examples_are_there_in_any_case() -> None:
    assert fixed_bytes(SIZES) == 4 * NUM_STATE + NUM_EXAMPLES * (4 * NUM_FEATURES + 8)


def test_records_lie_in_the_process() -> None:
    assert process_bytes() > 50 * 2**20  # torch alone is more
    assert host_bytes(SIZES, 2, 1) - host_bytes(SIZES, 0, 0) == 7 * 4 * NUM_STATE


def test_a_processor_has_one_memory() -> None:
    assert Memory(3, 5, on_host=True).process_bytes == 8
    assert Memory(3, 5, on_host=False).process_bytes == 5
