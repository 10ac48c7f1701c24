"""A training that ends at any step, and is begun again from what it saved, gives the bits of one that ran through."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.pruning.masks import Masks
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training import checkpoint
from suite.training.checkpoint import Interrupted, Notice, Stage, Trainings
from suite.training.loop import History, Hooks, train

Make = Callable[..., Recipe]
NUM_STEPS = 9  # three epochs of 50 examples in batches of 20


class Power(Exception):
    """Goes out."""


class Hidden(nn.Module):
    """Has running statistics, a buffer that no state dict holds, and a weight that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += self.training
        logits: Tensor = self.last(torch.relu(self.norm(self.first(inputs))))
        return logits * (1 + 0.01 * self.calls)


@torch.random.fork_rng(devices=[])
def network() -> Hidden:
    torch.manual_seed(3)
    return Hidden()


def splits() -> dict[str, Split]:
    draw = torch.Generator().manual_seed(5)

    def one(size: int) -> Split:
        return Split(torch.randn(size, 4, generator=draw), torch.randint(0, 3, (size,), generator=draw))

    return {"train": one(50), "validation": one(20), "test": one(20)}


def everything(model: nn.Module, history: History) -> dict[str, Any]:
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bits = {name: value.detach().numpy().tobytes() for name, value in values.items()}
    return bits | {"history": repr(asdict(history))}


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after each step, however short."""
    monkeypatch.setattr(checkpoint, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_TIME", 1.0)


def stage(folder: Path, notice: Notice | None = None) -> Stage:
    found = Trainings(folder, "tiny", notice or Notice()).stage("training")
    assert found is not None
    return found


def masks() -> Masks:
    draw = torch.Generator().manual_seed(1)
    return {"first.weight": torch.rand((6, 4), generator=draw) < 0.5}


CASES: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9, "weight_decay": 1e-3, "l1": 1e-3, "schedule": "cosine"},
    "plain": {"momentum": 0.0},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adam": {"optimiser": "adam", "weight_decay": 1e-3},
    "bfloat16": {"momentum": 0.9, "precision": "bfloat16"},
    "micro-batches": {"momentum": 0.9, "micro_batch_size": 7},
    "warm-up": {"momentum": 0.9, "schedule": "step", "milestones": (1, 2), "warmup_epochs": 2},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("start", "stop", "pruned"), [(0, None, False), (2, None, True), (0, 8, True)])
@pytest.mark.usefixtures("at_every_step")
def test_a_training_that_dies_at_any_step(
    recipe: Make, tmp_path: Path, case: str, start: int, stop: int | None, pruned: bool
) -> None:
    made = recipe(epochs=3, batch_size=20, **CASES[case])
    options: dict[str, Any] = {"masks": masks() if pruned else None, "start_step": start, "stop_step": stop}
    whole = network()
    expected = everything(whole, train(whole, splits(), made, 0, **options))
    total = (stop or NUM_STEPS) - start
    for dies_in in range(1, total + 1):
        steps: list[int] = []

        def die(dies_in: int = dies_in, steps: list[int] = steps) -> None:
            steps.append(len(steps) + 1)
            if len(steps) == dies_in:
                raise Power

        folder = tmp_path / str(dies_in)
        with pytest.raises(Power):
            train(network(), splits(), made, 0, **options, hooks=Hooks(after_step=die), stage=stage(folder))
        model, rest = network(), []
        hooks = Hooks(after_step=lambda rest=rest: rest.append(1))
        history = train(model, splits(), made, 0, **options, hooks=hooks, stage=stage(folder))
        assert everything(model, history) == expected
        assert len(rest) == total - (dies_in - 1)  # only the step in which it died is done twice


@pytest.mark.parametrize("seconds_between", [1, 4])
def test_a_training_that_dies_again_and_again(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds_between: int
) -> None:
    made = recipe(epochs=3, batch_size=20, **CASES["momentum"])
    whole, ends = network(), None
    expected = everything(whole, train(whole, splits(), made, 0))
    monkeypatch.setattr(checkpoint, "SHORTEST_S", float(seconds_between))
    num_tries = 0
    while ends is None:
        now = iter(range(10**6))  # each look at the clock takes a second
        found = Trainings(tmp_path, "tiny", clock=lambda now=now: float(next(now))).stage("training")
        left = iter(range(seconds_between + 2))

        def die(left: Any = left) -> None:
            if next(left, None) is None:
                raise Power

        num_tries += 1
        try:
            model = network()
            ends = everything(model, train(model, splits(), made, 0, hooks=Hooks(after_step=die), stage=found))
        except Power:
            continue
    assert ends == expected
    assert num_tries > 1


@pytest.mark.parametrize("asked_in", range(1, NUM_STEPS + 1))
def test_a_training_that_is_told_to_stop(recipe: Make, tmp_path: Path, asked_in: int) -> None:
    made = recipe(epochs=3, batch_size=20, **CASES["momentum"])
    whole = network()
    expected = everything(whole, train(whole, splits(), made, 0))
    notice, steps = Notice(), []

    def ask() -> None:
        steps.append(1)
        notice.stop = len(steps) == asked_in

    with pytest.raises(Interrupted, match=f"training at step {asked_in}"):
        train(network(), splits(), made, 0, hooks=Hooks(after_step=ask), stage=stage(tmp_path, notice))
    model, told = network(), []
    rest = train(model, splits(), made, 0, stage=stage(tmp_path), progress=lambda *event: told.append(event))
    assert everything(model, rest) == expected
    assert told[0] == (asked_in / NUM_STEPS, f"goes on at step {asked_in}")


@pytest.mark.usefixtures("at_every_step")
def test_saving_changes_no_bit(recipe: Make, tmp_path: Path) -> None:
    made = recipe(epochs=3, batch_size=20, **CASES["momentum"])
    whole, watched = network(), network()
    expected = everything(whole, train(whole, splits(), made, 0))
    assert everything(watched, train(watched, splits(), made, 0, stage=stage(tmp_path))) == expected


@pytest.mark.usefixtures("at_every_step")
def test_what_a_network_draws_goes_on_too(recipe: Make, tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3))

    made, steps = recipe(epochs=3, batch_size=20, momentum=0.9), []

    def die() -> None:
        steps.append(1)
        if len(steps) == 5:
            raise Power

    with torch.random.fork_rng(devices=[]):
        whole = build()
        expected = everything(whole, train(whole, splits(), made, 0))
        with pytest.raises(Power):
            train(build(), splits(), made, 0, hooks=Hooks(after_step=die), stage=stage(tmp_path))
        model = build()
        torch.manual_seed(99)
        assert everything(model, train(model, splits(), made, 0, stage=stage(tmp_path))) == expected


@pytest.mark.usefixtures("at_every_step")
def test_another_s_state_is_not_gone_on_from(recipe: Make, tmp_path: Path) -> None:
    made = recipe(epochs=3, batch_size=20, momentum=0.9)
    train(network(), splits(), made, 1, stage=stage(tmp_path))
    whole, model = network(), network()
    expected = everything(whole, train(whole, splits(), made, 0))
    mine = Trainings(tmp_path, "of seed 0").stage("training")
    assert everything(model, train(model, splits(), made, 0, stage=mine)) == expected


@torch.random.fork_rng(devices=[])
def convolutional() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(4 * 30, 3))


def images() -> dict[str, Split]:
    draw, normalisation = torch.Generator().manual_seed(5), Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))

    def one(size: int) -> Split:
        pixels = torch.randint(0, 256, (size, 3, 6, 5), generator=draw, dtype=torch.uint8)
        return Split(pixels, torch.randint(0, 3, (size,), generator=draw), normalisation)

    return {"train": one(50), "validation": one(20), "test": one(20)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{"momentum": 0.9, "nesterov": True}, {"optimiser": "adam", "micro_batch_size": 8}])
@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.usefixtures("at_every_step")
def test_augmented_images_go_on_too(
    recipe: Make, tmp_path: Path, precision: str, changes: dict[str, Any], pruned: bool
) -> None:
    made = recipe(epochs=3, batch_size=20, augmentation="crop_flip", precision=precision, weight_decay=1e-3, **changes)
    kept = {"0.weight": torch.rand((6, 3, 3, 3), generator=torch.Generator().manual_seed(1)) < 0.5} if pruned else None
    whole = convolutional()
    expected = everything(whole, train(whole, images(), made, 0, masks=kept))
    for dies_in in (1, 2, 4, 6, 9):
        steps: list[int] = []

        def die(dies_in: int = dies_in, steps: list[int] = steps) -> None:
            steps.append(1)
            if len(steps) == dies_in:
                raise Power

        folder = tmp_path / str(dies_in)
        with pytest.raises(Power):
            train(convolutional(), images(), made, 0, masks=kept, hooks=Hooks(after_step=die), stage=stage(folder))
        model = convolutional()
        history = train(model, images(), made, 0, masks=kept, stage=stage(folder))
        assert everything(model, history) == expected
        assert model[0].weight.is_contiguous()  # type: ignore[index, union-attr]
