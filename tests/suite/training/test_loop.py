"""The loop held against training by hand: numpy in double precision, and autograd of the written-out loss."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.errors import TrainingDiverged
from suite.network import ModelSpec
from suite.problem import Problem, evaluate
from suite.seeds import generator
from suite.splits import Split
from suite.study import Recipe
from suite.training.loop import Hooks, train
from suite.training.schedules import learning_rate

Make = Callable[..., Recipe]
State = dict[str, Tensor]


def splits(count: int = 50, dtype: torch.dtype = torch.float32) -> dict[str, Split]:
    draw = torch.Generator().manual_seed(5)

    def one(size: int) -> Split:
        inputs = torch.randn(size, 4, generator=draw, dtype=dtype)
        return Split(inputs, torch.randint(0, 3, (size,), generator=draw))

    return {"train": one(count), "validation": one(20), "test": one(20)}


def network(hidden: int = 6) -> Any:
    spec = ModelSpec(name="mlp", options={"hidden": [hidden] * bool(hidden)}, input_shape=(4,), num_classes=3)
    return Problem.of(spec, {}, initialisation="kaiming_normal", seed=0, device="cpu").model


def state(model: nn.Module) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(left: State, right: State) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


class Ramp(nn.Module):
    """One weight that no loss reaches, so that a penalty alone moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 3, dtype=torch.float64) + 0 * self.position


def test_three_steps_of_momentum_and_weight_decay_by_hand(recipe: Make) -> None:
    data = splits(10, torch.float64)
    model = network(0).double()
    weight, bias = model[1].weight.detach().numpy().copy(), model[1].bias.detach().numpy().copy()
    made = recipe(epochs=3, batch_size=10, learning_rate=0.2, momentum=0.9, weight_decay=0.01)
    train(model, data, made, 0)
    inputs, targets = data["train"][0].numpy(), data["train"][1].numpy()
    velocity_w, velocity_b = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        logits = inputs @ weight.T + bias
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        residual = (probabilities - np.eye(3)[targets]) / 10
        velocity_w = 0.9 * velocity_w + residual.T @ inputs + 0.01 * weight
        velocity_b = 0.9 * velocity_b + residual.sum(axis=0) + 0.01 * bias
        weight, bias = weight - 0.2 * velocity_w, bias - 0.2 * velocity_b
    assert np.allclose(model[1].weight.detach().numpy(), weight, rtol=1e-12, atol=1e-15)
    assert np.allclose(model[1].bias.detach().numpy(), bias, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("scope", ["prunable", "all"])
def test_l1_is_the_gradient_of_its_penalty(recipe: Make, scope: str) -> None:
    data = splits(10, torch.float64)
    model = network().double()
    for name, parameter in model.named_parameters():
        parameter.data += 0.3 if name.endswith("bias") else 0.0  # away from the kink
    by_autograd = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    logits = torch.func.functional_call(model, dict(zip(names, by_autograd, strict=True)), (data["train"][0],))
    loss = nn.functional.cross_entropy(logits, data["train"][1])
    penalised = [p for n, p in zip(names, by_autograd, strict=True) if scope == "all" or n.endswith("weight")]
    gradients = torch.autograd.grad(loss + 0.07 * sum(p.abs().sum() for p in penalised), by_autograd)
    train(model, data, recipe(epochs=1, batch_size=10, learning_rate=0.5, l1=0.07, l1_scope=scope), 0)
    for parameter, before, gradient in zip(model.parameters(), by_autograd, gradients, strict=True):
        assert torch.allclose(parameter, before - 0.5 * gradient, rtol=1e-12, atol=1e-15)


def test_l1_leaves_a_zero_where_it_is(recipe: Make) -> None:
    model = network()
    model[1].weight.data.zero_()
    model[3].weight.data.zero_()  # then no gradient reaches the first layer
    train(model, splits(), recipe(epochs=1, batch_size=50, l1=0.5), 0)
    assert not model[1].weight.any()


def test_the_rate_of_each_step_is_the_schedule_s(recipe: Make) -> None:
    # The gradient of the penalty is 1, so each step moves the weight by its rate.
    model, positions = Ramp(), [0.0]
    hooks = Hooks(penalty=lambda: model.position, after_step=lambda: positions.append(model.position.item()))
    made = recipe(epochs=4, batch_size=25, schedule="step", milestones=(2, 3), gamma=0.1, warmup_epochs=1)
    train(model, splits(), made, 0, hooks=hooks)
    expected = [learning_rate(made, step, 8) for step in range(8)]
    assert -np.diff(positions) == pytest.approx(expected, rel=1e-12)


def test_a_training_that_starts_later_goes_on_in_schedule_and_order(recipe: Make) -> None:
    made = recipe(epochs=3, batch_size=20, schedule="cosine")  # 9 steps; momentum 0, so there is no state to lose
    for start in (1, 3, 5):
        whole, parts = network(), network()
        train(whole, splits(), made, 0)
        train(parts, splits(), made, 0, stop_step=start)
        train(parts, splits(), made, 0, start_step=start)
        assert equal(state(whole), state(parts))


@pytest.mark.parametrize("stop", [1, 3, 4, 9, 100])
def test_stopping_at_a_step_is_the_first_steps_of_the_whole(recipe: Make, stop: int) -> None:
    made = recipe(epochs=3, batch_size=20, schedule="cosine", momentum=0.9, weight_decay=1e-3, l1=1e-3)
    whole, after = network(), []
    train(whole, splits(), made, 0, hooks=Hooks(after_step=lambda: after.append(state(whole))))
    model = network()
    history = train(model, splits(), made, 0, stop_step=stop)
    assert history.num_steps == min(stop, 9)
    assert equal(state(model), after[min(stop, 9) - 1])


@pytest.mark.parametrize("start", [-1, 6, 7])
def test_a_start_that_is_no_step(recipe: Make, start: int) -> None:
    with pytest.raises(ValueError, match=rf"start_step={start} is out of range\. Expected: 0 <= start_step < 6\."):
        train(network(), splits(), recipe(epochs=2, batch_size=20), 0, start_step=start)


class Spy(nn.Module):
    """Writes down which examples it sees in training; an example's first feature is its number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 3, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.batches: list[list[int]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.batches.append([int(number) for number in inputs[:, 0]])
        logits: Tensor = self.layer(inputs / 50)
        return logits


def seen(made: Recipe, seed: int, **options: Any) -> list[list[int]]:
    model = Spy()
    data = {"train": Split(torch.arange(50.0).unsqueeze(1), torch.arange(50) % 3)}
    train(model, data, made, seed, **options)
    return model.batches


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own(recipe: Make) -> None:
    made = recipe(epochs=3, batch_size=20)
    batches = seen(made, 0)
    assert [len(batch) for batch in batches] == [20, 20, 10] * 3
    epochs = [[*chain(*batches[3 * epoch : 3 * epoch + 3])] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[1] == torch.randperm(50, generator=generator(0, "order", 1)).tolist()
    assert epochs[0] != epochs[1]
    assert seen(made, 0) == batches
    assert seen(made, 1) != batches
    assert seen(made, 0, start_step=4) == batches[4:]


def test_masked_weights_have_no_gradient_and_never_move(recipe: Make) -> None:
    model = network()
    draw = torch.Generator().manual_seed(1)
    weights = {"1.weight": model[1].weight, "3.weight": model[3].weight}
    masks = {name: torch.rand(weight.shape, generator=draw) < 0.4 for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.data.mul_(masks[name])
    before = state(model)
    moments: list[bool] = []

    def look() -> None:
        both = [(weight.detach(), weight.grad, masks[name]) for name, weight in weights.items()]
        moments.append(any(bool(weight[~mask].any() or gradient[~mask].any()) for weight, gradient, mask in both))

    made = recipe(epochs=10, batch_size=25, momentum=0.9, weight_decay=0.01, l1=0.01)
    history = train(model, splits(), made, 0, masks=masks, hooks=Hooks(after_step=look))
    assert history.num_steps == 20
    assert moments == [False] * 20
    for name, weight in weights.items():
        assert (weight.detach() != before[name])[masks[name]].all()  # and all the others do


def test_masks_also_hold_weights_that_do_not_start_at_zero(recipe: Make) -> None:
    model = network()
    train(model, splits(), recipe(epochs=1), 0, masks={"1.weight": torch.zeros(6, 4, dtype=torch.bool)})
    assert not model[1].weight.any()


def test_a_pruned_weight_that_comes_back_stops_the_training(recipe: Make) -> None:
    model = network()
    masks = {"1.weight": torch.zeros(6, 4, dtype=torch.bool)}
    hooks = Hooks(after_step=lambda: model[1].weight.data.fill_(1))
    with pytest.raises(AssertionError, match="a pruned weight is not zero"):
        train(model, splits(), recipe(), 0, masks=masks, hooks=hooks)


def test_masks_that_keep_everything_change_nothing(recipe: Make) -> None:
    free, masked = network(), network()
    made = recipe(momentum=0.9, weight_decay=1e-3)
    train(free, splits(), made, 0)
    ones = {name: torch.ones(shape, dtype=torch.bool) for name, shape in (("1.weight", (6, 4)), ("3.weight", (3, 6)))}
    train(masked, splits(), made, 0, masks=ones)
    assert equal(state(free), state(masked))


def test_a_loss_that_is_not_finite_ends_the_training(recipe: Make) -> None:
    with pytest.raises(TrainingDiverged, match=r"The loss is (nan|inf) at step \d of 100 \(epoch [1-4]\); it was "):
        train(network(), splits(), recipe(epochs=50, batch_size=25, learning_rate=1e30), 0)


def test_curves_have_a_point_per_epoch_and_are_what_they_say(recipe: Make) -> None:
    model, data = network(), splits()
    made = recipe(epochs=3, batch_size=20, schedule="cosine")
    history = train(model, data, made, 0)
    assert (history.num_steps, history.num_examples) == (9, 150)
    assert {len(values) for values in history.curves.values()} == {3}
    assert history.curves["epoch"] == [1, 2, 3]
    assert history.curves["learning_rate"] == [learning_rate(made, step, 9) for step in (2, 5, 8)]
    last = evaluate(model, data["test"])
    assert (history.curves["test_loss"][-1], history.curves["test_accuracy"][-1]) == last


@pytest.mark.parametrize(("micro_batch_size", "largest"), [(None, 20), (7, 7), (1, 1)])
def test_an_evaluation_takes_no_more_at_once_than_a_step(
    recipe: Make, micro_batch_size: int | None, largest: int
) -> None:
    model, sizes = network(), []
    train(model, splits(), recipe(epochs=1, batch_size=20), 0)  # looks at the network
    model.register_forward_pre_hook(lambda model, given: None if model.training else sizes.append(len(given[0])))
    history = train(model, splits(), recipe(epochs=1, batch_size=20, micro_batch_size=micro_batch_size), 0)
    assert max(sizes) == largest
    assert sum(sizes) == 40
    assert history.curves["test_loss"][-1] == pytest.approx(evaluate(model, splits()["test"]).loss, rel=1e-6)


def test_the_train_loss_of_an_epoch_is_the_mean_over_its_examples(recipe: Make) -> None:
    # With a vanishing rate the network stands still, so batches of any size add up to the loss of the whole.
    model, data = network(), splits()
    history = train(model, data, recipe(epochs=1, batch_size=20, learning_rate=1e-12), 0)
    assert history.curves["train_loss"][0] == pytest.approx(evaluate(model, data["train"]).loss, rel=1e-6)


def test_splits_that_are_not_there_have_no_curves(recipe: Make) -> None:
    history = train(network(), {"train": splits()["train"]}, recipe(), 0)
    assert set(history.curves) == {"epoch", "train_loss", "learning_rate"}


def test_hooks_are_called_after_every_step_and_every_whole_epoch(recipe: Make) -> None:
    calls: list[Any] = []
    hooks = Hooks(after_step=lambda: calls.append("step"), after_epoch=calls.append)
    train(network(), splits(), recipe(epochs=3, batch_size=25), 0, stop_step=5, hooks=hooks)
    assert calls == ["step", "step", 1, "step", "step", 2, "step"]


def test_batch_normalisation_trains_on_batches_and_is_evaluated_on_running_statistics(recipe: Make) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    data = splits()
    before = evaluate(model, data["train"]).loss
    history = train(model, data, recipe(epochs=5, batch_size=25, learning_rate=0.3), 0)
    assert int(model.get_buffer("1.num_batches_tracked")) == 10  # evaluations in between are not among them
    with torch.no_grad():
        logits = model.eval()(data["test"][0])
    assert history.curves["test_loss"][-1] == pytest.approx(
        float(nn.functional.cross_entropy(logits, data["test"][1])), rel=1e-6
    )
    assert evaluate(model, data["train"]).loss < before


def test_frozen_parameters_stay(recipe: Make) -> None:
    model = network()
    model[1].weight.requires_grad_(False)
    before = state(model)
    train(model, splits(), recipe(weight_decay=0.1, momentum=0.5), 0)
    assert torch.equal(model[1].weight, before["1.weight"])
    assert not torch.equal(model[3].weight, before["3.weight"])


def test_what_layers_draw_depends_on_the_seed_and_on_nothing_that_was_drawn_before(recipe: Make) -> None:
    trained = []
    for seed, drawn_before in ((0, 0), (0, 5), (1, 0)):
        with torch.random.fork_rng(devices=[]):
            model = nn.Sequential(network(hidden=8), nn.Dropout(0.5))
            torch.rand(drawn_before)
            train(model, splits(24), recipe(epochs=2, batch_size=8), seed)
        trained.append(state(model))
    assert equal(trained[0], trained[1])
    assert not equal(trained[0], trained[2])
