"""One step held against numpy by hand, and against a plain loop of torch that knows no memory order and no fusing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.seeds import generator
from suite.splits import Split
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic
from suite.training.hooks import Hooks
from suite.training.loop import train
from suite.training.stepper import Stepper

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


def data(count: int = 20, *shape: int) -> Split:
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, *(shape or (4,)), generator=draw, dtype=torch.float64)
    return Split(inputs, torch.randint(0, 3, (count,), generator=draw))


@torch.random.fork_rng(devices=[])
def linear() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3)).double()


@torch.random.fork_rng(devices=[])
def convolutional() -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers).double()


def gradients(weight: np.ndarray, bias: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = split.inputs.numpy(), split.targets.numpy()
    logits = inputs @ weight.T + bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    residual = (probabilities - np.eye(3)[targets]) / len(targets)
    return residual.T @ inputs, residual.sum(axis=0)


def assert_close(model: nn.Sequential, weight: np.ndarray, bias: np.ndarray) -> None:
    assert np.allclose(model[0].weight.detach().numpy(), weight, rtol=1e-11, atol=1e-14)
    assert np.allclose(model[0].bias.detach().numpy(), bias, rtol=1e-11, atol=1e-14)


def test_adam_by_hand(recipe: Make) -> None:
    split, model = data(), linear()
    values = [model[0].weight.detach().numpy().copy(), model[0].bias.detach().numpy().copy()]
    made = recipe(epochs=4, batch_size=20, learning_rate=0.05, optimiser="adam", weight_decay=0.01)
    train(model, {"train": split}, made, 0)
    first, second = [np.zeros_like(each) for each in values], [np.zeros_like(each) for each in values]
    for step in range(1, 5):
        found = gradients(values[0], values[1], split)
        for index, gradient in enumerate(found):
            gradient = gradient + 0.01 * values[index]
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            corrected = np.sqrt(second[index] / (1 - 0.999**step)) + 1e-8
            values[index] = values[index] - 0.05 * first[index] / (1 - 0.9**step) / corrected
    assert_close(model, *values)


def test_nesterov_by_hand(recipe: Make) -> None:
    split, model = data(), linear()
    values = [model[0].weight.detach().numpy().copy(), model[0].bias.detach().numpy().copy()]
    velocity = [np.zeros_like(each) for each in values]
    made = recipe(epochs=3, batch_size=20, learning_rate=0.2, momentum=0.8, nesterov=True)
    train(model, {"train": split}, made, 0)
    for _ in range(3):
        for index, gradient in enumerate(gradients(values[0], values[1], split)):
            velocity[index] = 0.8 * velocity[index] + gradient
            values[index] = values[index] - 0.2 * (gradient + 0.8 * velocity[index])
    assert_close(model, *values)


@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"optimiser": "adam"}, {"momentum": 0.9, "nesterov": True}])
def test_a_convolutional_network_trains_as_in_a_plain_loop(recipe: Make, changes: dict[str, Any]) -> None:
    split, model, plain = data(20, 2, 5, 5), convolutional(), convolutional()
    made = recipe(epochs=3, batch_size=8, learning_rate=0.05, weight_decay=1e-3, **changes)
    train(model, {"train": split}, made, 0)
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 1e-3, "foreach": False, "fused": False}
    optimiser: torch.optim.Optimizer
    if made.optimiser == "adam":
        optimiser = torch.optim.Adam(plain.parameters(), **options)
    else:
        optimiser = torch.optim.SGD(plain.parameters(), momentum=0.9, nesterov=made.nesterov, **options)
    for epoch in range(3):
        for index in torch.randperm(20, generator=generator(0, "order", epoch)).split(8):
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(split.inputs[index]), split.targets[index]).backward()
            optimiser.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
        assert one.is_contiguous()


class Fixed(nn.Module):
    """A filter in the order of channels last, that no loss reaches."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 3, dtype=torch.float64) + 0 * self.weight.sum()


@pytest.mark.parametrize("changes", [{}, {"optimiser": "adam"}])
def test_gradients_in_another_memory_order_reach_their_weights(recipe: Make, changes: dict[str, Any]) -> None:
    before = convolutional()[0].weight.detach().clone()
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fixed, made = Fixed(before), recipe(learning_rate=0.1, **changes)

    def reorder(weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad = weight.grad.contiguous()

    hooks = Hooks(penalty=lambda: (fixed.weight * gradient).sum())
    stepper = Stepper(fixed, made, None, hooks, Arithmetic.of(made, CPU), images_last=False)
    fixed.weight.register_post_accumulate_grad_hook(reorder)
    stepper.step(data(), 0.1)
    moved = gradient.sign() if changes else gradient  # Adam's first step has the length of the rate
    assert torch.allclose(fixed.weight, before - 0.1 * moved, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 7, 8, 100])
def test_micro_batches_add_up_to_the_batch(recipe: Make, micro_batch_size: int) -> None:
    split, whole, parts = data(20, 2, 5, 5), convolutional(), convolutional()
    made = recipe(epochs=2, batch_size=8, learning_rate=0.3, momentum=0.9, l1=1e-3)
    hooks = [Hooks(penalty=lambda model=model: 0.1 * model[0].weight.square().sum()) for model in (whole, parts)]
    one = train(whole, {"train": split}, made, 0, hooks=hooks[0])
    changed = made.model_copy(update={"micro_batch_size": micro_batch_size})
    other = train(parts, {"train": split}, changed, 0, hooks=hooks[1])
    assert other.num_steps == one.num_steps
    assert other.curves["train_loss"] == pytest.approx(one.curves["train_loss"], rel=1e-12)
    for left, right in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(left, right, rtol=1e-11, atol=1e-13)


def test_batch_normalisation_sees_micro_batches(recipe: Make) -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    train(model, {"train": data(20)}, recipe(epochs=1, batch_size=10, micro_batch_size=5), 0)
    assert int(model.get_buffer("0.num_batches_tracked")) == 4


@pytest.mark.parametrize("changes", [{"optimiser": "adam"}, {"momentum": 0.9, "nesterov": True}])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_masks_are_kept_exactly(recipe: Make, changes: dict[str, Any], precision: str) -> None:
    split = data(20, 2, 5, 5)
    single, model = split._replace(inputs=split.inputs.float()), convolutional().float()
    masks = {"0.weight": torch.rand(model[0].weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5}
    seen: list[bool] = []
    hooks = Hooks(after_step=lambda: seen.append(bool(model[0].weight.detach()[~masks["0.weight"]].any())))
    made = recipe(epochs=5, batch_size=8, l1=1e-3, weight_decay=1e-2, precision=precision, **changes)
    before = model[0].weight.detach().clone()
    train(model, {"train": single}, made, 0, masks=masks, hooks=hooks)
    assert seen == [False] * 15
    assert (model[0].weight.detach() != before)[masks["0.weight"]].all()


@pytest.mark.parametrize("scope", ["all", "prunable"])
def test_gradients_remember_nothing_of_penalties_and_masks(recipe: Make, scope: str) -> None:
    model, seen = convolutional(), []
    masks = {"0.weight": torch.rand(model[0].weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5}
    hooks = Hooks(after_step=lambda: seen.extend(weight.grad for weight in model.parameters()))
    made = recipe(epochs=2, batch_size=10, l1=1e-3, l1_scope=scope, weight_decay=1e-2, momentum=0.9)
    train(model, {"train": data(20, 2, 5, 5)}, made, 0, masks=masks, hooks=hooks)
    assert len(seen) == 4 * 4
    assert not [each for each in seen if each is None or each.requires_grad or each.grad_fn is not None]
    assert not [weight for weight in model.parameters() if weight.grad_fn is not None or not weight.requires_grad]
